//! The high watermark that this log was told last. The log makes no use of it, but to settle transactions: it is kept for
//! the directory's checkpoint, and so for the next start.
//!
//! Invariant: it is never beyond the log's end, provided that nobody tells one that is.

use std::sync::atomic::Ordering;

use ottla_base::Offset;

use super::Log;

const UNKNOWN: i64 = -1;

impl Log {
    /// The high watermark that this process or an earlier one has noted last, within what is left of the log.
    #[must_use]
    pub fn noted_high_watermark(&self) -> Option<Offset> {
        let noted = Some(Offset(self.high_watermark.load(Ordering::Acquire)));
        noted.filter(|noted| noted.0 != UNKNOWN)
    }

    /// The high watermark has moved: what ended before it has ended for good, and the next checkpoint tells of it.
    pub fn note_high_watermark(&self, high_watermark: Offset) {
        self.high_watermark.store(high_watermark.0, Ordering::Release);
        self.settle_transactions(high_watermark);
    }

    /// What a checkpoint says of a log that was just opened: recovery may have cut it off below.
    pub(crate) fn restore_high_watermark(&self, checkpointed: Offset) {
        let within = checkpointed.min(self.log_end_offset()).max(self.log_start_offset());
        self.high_watermark.store(within.0, Ordering::Release);
    }

    /// The log ends here now.
    pub(super) fn lower_high_watermark(&self, end: Offset) {
        self.high_watermark.fetch_min(end.0, Ordering::AcqRel);
    }

    /// Another log may get this one's name: the checkpoint is not to speak of this one any more.
    pub(super) fn forget_high_watermark(&self) {
        self.high_watermark.store(UNKNOWN, Ordering::Release);
    }
}
