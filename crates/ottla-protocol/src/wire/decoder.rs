//! Reads numbers, texts and lists out of bytes that nobody vouches for.
//!
//! Invariants: `position <= frame.len()`; nothing is allocated for a length or a count before it has been compared
//! with the bytes that are left; a list grows as its elements arrive, from a reservation of at most
//! [`RESERVED_ELEMENTS`].

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::{ErrorCode, Uuid};

use super::{Malformed, Records, Structure};

type Result<T> = std::result::Result<T, Malformed>;

/// The most elements that a list reserves room for before they have been read.
const RESERVED_ELEMENTS: usize = 4096;
/// The longest text that Kafka writes or reads, in bytes.
const TEXT_LEN_MAX: usize = 0x7fff;

/// A position in a frame. What it returns shares the frame's memory. With `flexible` lengths are compact (KIP-482).
///
/// # Errors
/// Whatever is read: [`Malformed::Truncated`] where the bytes end before, [`Malformed::Varint`], [`Malformed::TextTooLong`]
/// and [`Malformed::TooManyElements`] for lengths that cannot be, [`Malformed::UnexpectedNull`] where null is no value.
/// The position is somewhere within then.
#[derive(Debug, Clone)]
pub struct Decoder {
    frame: Bytes,
    position: usize,
}

impl From<Bytes> for Decoder {
    fn from(frame: Bytes) -> Self {
        Self::new(frame)
    }
}

#[expect(clippy::missing_errors_doc, reason = "told once, at the type")]
impl Decoder {
    #[must_use]
    pub fn new(frame: Bytes) -> Self {
        Self { frame, position: 0 }
    }

    /// The number of bytes read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// The number of bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.frame.len() - self.position
    }

    /// The bytes not yet read.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.frame.slice(self.position..)
    }

    /// Fails unless everything has been read, with [`Malformed::LeftOver`].
    pub fn finish(&self) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(Malformed::LeftOver(left)),
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let left = self.frame.get(self.position..).unwrap_or_default();
        let Some(bytes) = left.first_chunk::<N>() else {
            return Err(Malformed::Truncated { needed: N, left: left.len() });
        };
        self.position += N;
        Ok(*bytes)
    }

    /// The next `len` bytes, which share the frame.
    pub fn take(&mut self, len: usize) -> Result<Bytes> {
        self.skip(len)?;
        Ok(self.frame.slice(self.position - len..self.position))
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        let left = self.remaining();
        if len > left {
            return Err(Malformed::Truncated { needed: len, left });
        }
        self.position += len;
        Ok(())
    }

    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    pub fn i8(&mut self) -> Result<i8> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16> {
        self.fixed().map(u16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub fn f64(&mut self) -> Result<f64> {
        self.fixed().map(f64::from_be_bytes)
    }

    pub fn uuid(&mut self) -> Result<Uuid> {
        self.fixed().map(Uuid)
    }

    pub fn error_code(&mut self) -> Result<ErrorCode> {
        self.i16().map(ErrorCode)
    }

    /// Seven bits a byte, the lowest first; at most five bytes.
    pub fn unsigned_varint(&mut self) -> Result<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    /// A varint as Kafka holds it, whose integers all have a sign.
    fn signed_varint(&mut self) -> Result<i32> {
        self.unsigned_varint().map(u32::cast_signed)
    }

    /// A compact length, which is one less than what is written; `None` is null. Like Kafka, we take any negative
    /// length for null.
    fn compact_len(&mut self) -> Result<Option<usize>> {
        Ok(usize::try_from(self.signed_varint()?.wrapping_sub(1)).ok())
    }

    /// The length of a text; `None` is null. Like Kafka, we take any negative length for null.
    fn text_len(&mut self, flexible: bool) -> Result<Option<usize>> {
        let len = if flexible { self.compact_len()? } else { usize::try_from(self.i16()?).ok() };
        match len {
            Some(len) if len > TEXT_LEN_MAX => Err(Malformed::TextTooLong(len)),
            len => Ok(len),
        }
    }

    /// The length of bytes, or the number of elements in a list; `None` is null.
    fn len(&mut self, flexible: bool) -> Result<Option<usize>> {
        if flexible { self.compact_len() } else { Ok(usize::try_from(self.i32()?).ok()) }
    }

    fn text(&mut self, len: usize) -> Result<ByteString> {
        let bytes = self.take(len)?;
        // Kafka decodes leniently, too: what is not UTF-8 becomes U+FFFD.
        Ok(ByteString::try_from(bytes.clone())
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
    }

    pub fn string(&mut self, flexible: bool) -> Result<ByteString> {
        self.nullable_string(flexible)?.ok_or(Malformed::UnexpectedNull)
    }

    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<ByteString>> {
        match self.text_len(flexible)? {
            None => Ok(None),
            Some(len) => self.text(len).map(Some),
        }
    }

    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes> {
        self.nullable_bytes(flexible)?.ok_or(Malformed::UnexpectedNull)
    }

    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>> {
        match self.len(flexible)? {
            None => Ok(None),
            Some(len) => self.take(len).map(Some),
        }
    }

    pub fn records(&mut self, flexible: bool) -> Result<Records> {
        self.bytes(flexible).map(Records::Bytes)
    }

    pub fn nullable_records(&mut self, flexible: bool) -> Result<Option<Records>> {
        Ok(self.nullable_bytes(flexible)?.map(Records::Bytes))
    }

    /// The number of elements in a list that cannot be shorter than `min_size` bytes each.
    fn count(&mut self, flexible: bool, min_size: usize) -> Result<Option<usize>> {
        let count = self.len(flexible)?;
        match count {
            Some(count) if count > self.remaining() / min_size.max(1) => {
                Err(Malformed::TooManyElements { count, left: self.remaining() })
            }
            count => Ok(count),
        }
    }

    fn list<T>(
        &mut self,
        count: usize,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut list = Vec::with_capacity(count.min(RESERVED_ELEMENTS));
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    pub(crate) fn nullable_scalars<T>(
        &mut self,
        flexible: bool,
        size: usize,
        element: fn(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        match self.count(flexible, size)? {
            None => Ok(None),
            Some(count) => self.list(count, element).map(Some),
        }
    }

    pub(crate) fn scalars<T>(
        &mut self,
        flexible: bool,
        size: usize,
        element: fn(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.nullable_scalars(flexible, size, element)?.ok_or(Malformed::UnexpectedNull)
    }

    pub(crate) fn nullable_strings(&mut self, flexible: bool) -> Result<Option<Vec<ByteString>>> {
        match self.count(flexible, if flexible { 1 } else { 2 })? {
            None => Ok(None),
            Some(count) => self.list(count, |input| input.string(flexible)).map(Some),
        }
    }

    pub(crate) fn strings(&mut self, flexible: bool) -> Result<Vec<ByteString>> {
        self.nullable_strings(flexible)?.ok_or(Malformed::UnexpectedNull)
    }

    pub(crate) fn nullable_structures<T: Structure>(
        &mut self,
        flexible: bool,
        version: i16,
    ) -> Result<Option<Vec<T>>> {
        match self.count(flexible, T::MIN_SIZE)? {
            None => Ok(None),
            Some(count) => self.list(count, |input| T::read(input, version)).map(Some),
        }
    }

    pub(crate) fn structures<T: Structure>(
        &mut self,
        flexible: bool,
        version: i16,
    ) -> Result<Vec<T>> {
        self.nullable_structures(flexible, version)?.ok_or(Malformed::UnexpectedNull)
    }

    /// A structure behind a byte that is negative for null.
    pub(crate) fn nullable_structure<T: Structure>(&mut self, version: i16) -> Result<Option<T>> {
        if self.i8()? < 0 { Ok(None) } else { T::read(self, version).map(Some) }
    }

    /// A structure behind a varint that is zero, or negative, for null.
    pub(crate) fn nullable_tagged_structure<T: Structure>(
        &mut self,
        version: i16,
    ) -> Result<Option<T>> {
        if self.signed_varint()? <= 0 { Ok(None) } else { T::read(self, version).map(Some) }
    }

    /// Hands each tagged field to `read`, which returns whether it knows the tag; unknown fields are skipped.
    ///
    /// Like Kafka, we ask for the length of a field only if we don't know the field, and take a negative count for 0.
    pub(crate) fn tagged_fields(
        &mut self,
        read: &mut dyn FnMut(&mut Self, u32) -> Result<bool>,
    ) -> Result<()> {
        for _ in 0..self.signed_varint()? {
            let tag = self.unsigned_varint()?;
            let len = usize::try_from(self.unsigned_varint()?).expect("32 bits fit a usize");
            if !read(self, tag)? {
                self.skip(len)?;
            }
        }
        Ok(())
    }

    pub(crate) fn skip_tagged_fields(&mut self) -> Result<()> {
        self.tagged_fields(&mut |_, _| Ok(false))
    }
}
