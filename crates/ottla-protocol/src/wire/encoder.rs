//! Writes numbers, texts and lists, and leaves gaps for record batches that go out straight from a file.
//!
//! Invariants: gaps are in ascending order of `at`, and `gap.at <= buffer.len()`; `deferred` is the sum of their lengths.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use ottla_base::Uuid;

use super::{EncodeError, Records, Structure};

type Result<T> = std::result::Result<T, EncodeError>;

/// The longest text that Kafka writes or reads, in bytes.
const TEXT_LEN_MAX: usize = 0x7fff;

/// A place in the encoded bytes where `len` bytes of source `slot` belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// How many of the encoder's bytes come before.
    pub at: usize,
    pub slot: u32,
    pub len: u32,
}

/// Bytes to be sent or stored. With `flexible` lengths are compact (KIP-482).
///
/// # Errors
/// [`EncodeError::TooLong`] for a text of more than 32767 bytes, and for bytes, lists and frames of more than an int32
/// can say.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: BytesMut,
    gaps: Vec<Gap>,
    deferred: usize,
}

/// The tagged fields of one structure while they are being written.
#[derive(Debug)]
pub struct TaggedFields {
    /// Where the count of fields stands; one byte, since no structure has 128 of them.
    count_at: usize,
}

/// A tagged field whose length is not known yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct TaggedField {
    start: usize,
    deferred: usize,
}

#[expect(clippy::missing_errors_doc, reason = "told once, at the type")]
impl Encoder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(capacity), ..Self::default() }
    }

    /// The number of bytes written so far, with what belongs into the gaps.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.buffer.len() + self.deferred
    }

    /// The bytes at hand, and the gaps between them.
    #[must_use]
    pub fn finish(self) -> (Bytes, Vec<Gap>) {
        (self.buffer.freeze(), self.gaps)
    }

    /// The bytes of a message that defers nothing.
    ///
    /// # Panics
    /// When something was deferred: then the bytes are not the whole message.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        assert!(self.gaps.is_empty(), "deferred records need finish()");
        self.buffer.freeze()
    }

    /// Leaves four bytes for a length that is written later by [`Encoder::end_frame`].
    pub fn begin_frame(&mut self) -> usize {
        self.buffer.put_i32(0);
        self.total_len()
    }

    /// Writes how long the frame has become since `begin`, which [`Encoder::begin_frame`] returned, in front of it.
    /// Nothing may have been deferred before the frame began.
    pub fn end_frame(&mut self, begin: usize) -> Result<()> {
        let len = self.total_len() - begin;
        let len = i32::try_from(len).map_err(|_| EncodeError::TooLong(len))?;
        let place = begin.checked_sub(4).and_then(|start| self.buffer.get_mut(start..begin));
        place.expect("begin_frame wrote the four bytes").copy_from_slice(&len.to_be_bytes());
        Ok(())
    }

    pub fn bool(&mut self, value: bool) {
        self.buffer.put_u8(u8::from(value));
    }

    pub fn i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.buffer.put_u16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.buffer.put_u32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    pub fn f64(&mut self, value: f64) {
        self.buffer.put_f64(value);
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.buffer.put_slice(&value.0);
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    pub fn unsigned_varint(&mut self, value: u32) {
        let (bytes, len) = varint(value);
        self.buffer.put_slice(bytes.get(..len).expect("at most five bytes"));
    }

    fn compact_len(&mut self, len: usize) -> Result<()> {
        // Kafka's lengths are Java's ints.
        let written = i32::try_from(len).ok().and_then(|len| u32::try_from(len).ok());
        self.unsigned_varint(written.ok_or(EncodeError::TooLong(len))? + 1);
        Ok(())
    }

    /// The length of bytes, or the number of elements in a list.
    fn len(&mut self, len: usize, flexible: bool) -> Result<()> {
        if flexible {
            return self.compact_len(len);
        }
        self.i32(i32::try_from(len).map_err(|_| EncodeError::TooLong(len))?);
        Ok(())
    }

    fn null(&mut self, flexible: bool) {
        if flexible { self.unsigned_varint(0) } else { self.i32(-1) }
    }

    pub fn string(&mut self, text: &ByteString, flexible: bool) -> Result<()> {
        let len = i16::try_from(text.len()).map_err(|_| EncodeError::TooLong(text.len()))?;
        debug_assert!(text.len() <= TEXT_LEN_MAX);
        if flexible {
            self.compact_len(text.len())?
        } else {
            self.i16(len)
        }
        self.buffer.put_slice(text.as_bytes());
        Ok(())
    }

    pub fn nullable_string(&mut self, text: Option<&ByteString>, flexible: bool) -> Result<()> {
        match text {
            Some(text) => self.string(text, flexible)?,
            None if flexible => self.unsigned_varint(0),
            None => self.i16(-1),
        }
        Ok(())
    }

    pub fn bytes(&mut self, bytes: &Bytes, flexible: bool) -> Result<()> {
        self.len(bytes.len(), flexible)?;
        self.buffer.put_slice(bytes);
        Ok(())
    }

    pub fn nullable_bytes(&mut self, bytes: Option<&Bytes>, flexible: bool) -> Result<()> {
        match bytes {
            Some(bytes) => self.bytes(bytes, flexible),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub fn records(&mut self, records: &Records, flexible: bool) -> Result<()> {
        match records {
            Records::Bytes(bytes) => self.bytes(bytes, flexible)?,
            Records::Deferred { slot, len } => {
                self.len(records.len(), flexible)?;
                self.gaps.push(Gap { at: self.buffer.len(), slot: *slot, len: *len });
                self.deferred += records.len();
            }
        }
        Ok(())
    }

    pub fn nullable_records(&mut self, records: Option<&Records>, flexible: bool) -> Result<()> {
        match records {
            Some(records) => self.records(records, flexible),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn scalars<T: Copy>(
        &mut self,
        list: &[T],
        flexible: bool,
        element: fn(&mut Self, T),
    ) -> Result<()> {
        self.len(list.len(), flexible)?;
        for value in list {
            element(self, *value);
        }
        Ok(())
    }

    pub(crate) fn nullable_scalars<T: Copy>(
        &mut self,
        list: Option<&[T]>,
        flexible: bool,
        element: fn(&mut Self, T),
    ) -> Result<()> {
        match list {
            Some(list) => self.scalars(list, flexible, element),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn strings(&mut self, list: &[ByteString], flexible: bool) -> Result<()> {
        self.len(list.len(), flexible)?;
        list.iter().try_for_each(|text| self.string(text, flexible))
    }

    pub(crate) fn nullable_strings(
        &mut self,
        list: Option<&[ByteString]>,
        flexible: bool,
    ) -> Result<()> {
        match list {
            Some(list) => self.strings(list, flexible),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn structures<T: Structure>(
        &mut self,
        list: &[T],
        flexible: bool,
        version: i16,
    ) -> Result<()> {
        self.len(list.len(), flexible)?;
        list.iter().try_for_each(|element| element.write(self, version))
    }

    pub(crate) fn nullable_structures<T: Structure>(
        &mut self,
        list: Option<&[T]>,
        flexible: bool,
        version: i16,
    ) -> Result<()> {
        match list {
            Some(list) => self.structures(list, flexible, version),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn nullable_structure<T: Structure>(
        &mut self,
        value: Option<&T>,
        version: i16,
    ) -> Result<()> {
        self.i8(if value.is_some() { 1 } else { -1 });
        value.map_or(Ok(()), |value| value.write(self, version))
    }

    pub(crate) fn nullable_tagged_structure<T: Structure>(
        &mut self,
        value: Option<&T>,
        version: i16,
    ) -> Result<()> {
        self.unsigned_varint(u32::from(value.is_some()));
        value.map_or(Ok(()), |value| value.write(self, version))
    }

    pub(crate) fn no_tagged_fields(&mut self) {
        self.buffer.put_u8(0);
    }

    pub(crate) fn begin_tagged_fields(&mut self) -> TaggedFields {
        self.buffer.put_u8(0);
        TaggedFields { count_at: self.buffer.len() - 1 }
    }

    pub(crate) fn begin_tagged_field(&mut self, fields: &TaggedFields, tag: u32) -> TaggedField {
        let count = self.buffer.get_mut(fields.count_at).expect("begin_tagged_fields wrote it");
        *count += 1;
        self.unsigned_varint(tag);
        TaggedField { start: self.buffer.len(), deferred: self.deferred }
    }

    /// Puts the field's length, which is known only now, in front of it. Tagged fields are small and rare: to
    /// move their bytes costs less than to compute every length beforehand.
    pub(crate) fn end_tagged_field(&mut self, field: TaggedField) -> Result<()> {
        let TaggedField { start, deferred } = field;
        let end = self.buffer.len();
        let len = end - start + self.deferred - deferred;
        let (bytes, prefix) = varint(u32::try_from(len).map_err(|_| EncodeError::TooLong(len))?);
        let bytes = bytes.get(..prefix).expect("at most five bytes");
        self.buffer.put_slice(bytes);
        self.buffer.copy_within(start..end, start + prefix);
        let place = self.buffer.get_mut(start..start + prefix);
        place.expect("just grown by as much").copy_from_slice(bytes);
        for gap in self.gaps.iter_mut().rev().take_while(|gap| gap.at >= start) {
            gap.at += prefix;
        }
        Ok(())
    }
}

/// The bytes of a varint, and how many of the five count.
fn varint(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut len = 0;
    for byte in &mut bytes {
        let low = u8::try_from(value & 0x7f).expect("seven bits fit a byte");
        value >>= 7;
        *byte = if value == 0 { low } else { low | 0x80 };
        len += 1;
        if value == 0 {
            break;
        }
    }
    (bytes, len)
}
