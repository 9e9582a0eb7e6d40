//! A decision in the making: its records so far, and the cluster as they leave it. Pure.
//!
//! So the second step of a decision sees what the first one changed, as it would in a request of its own.

use crate::MetadataRecord;
use crate::image::Image;

#[derive(Debug)]
pub(super) struct Draft {
    /// With all of `records` applied.
    pub(super) image: Image,
    pub(super) records: Vec<MetadataRecord>,
}

impl Draft {
    pub(super) fn on(image: &Image) -> Self {
        Self { image: image.clone(), records: Vec::new() }
    }

    pub(super) fn push(&mut self, record: impl Into<MetadataRecord>) {
        let record = record.into();
        self.image.apply(&record).expect("a decision fits the image that it was made on");
        self.records.push(record);
    }

    /// `records` must have been decided on the image as it is.
    pub(super) fn extend(&mut self, records: Vec<MetadataRecord>) {
        records.into_iter().for_each(|record| self.push(record));
    }
}
