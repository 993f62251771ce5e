//! Reader of instruction data, and writer of the Solidity ABI of packet values (flat argument lists, arrays last).
//!
//! Packets come in a compact form and are written out again canonically here, so there is only one encoding to hash.

use crate::host;
use crate::values::{require, Address, Fail, Result, Word};

/// Largest instruction a program may send to a program (10 KiB), and so the largest event.
const MAX_EVENT: usize = 10_240;

/// Writer of words into work memory, behind room for the header of an event.
pub struct Writer {
    start: usize,
    header: usize,
    length: usize,
    limit: usize,
}

impl Writer {
    fn new(start: usize, header: usize, limit: usize) -> Self {
        Writer { start, header, length: header, limit }
    }

    /// The event of an inbox packet: the first part of the work memory.
    pub fn of_inbox() -> Self {
        Writer::new(host::HEAP, crate::packet::IN_HEADER, MAX_EVENT)
    }

    /// The event of an outbox packet of a kind: the second part.
    pub fn of_outbox(kind: u64) -> Result<Self> {
        let mut writer = Writer::new(host::HEAP + MAX_EVENT, crate::packet::OUT_HEADER, 1_024);
        writer.number(kind)?;
        Ok(writer)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.length + bytes.len();
        require(end <= self.limit, Fail::Malformed)?;
        unsafe { host::write(self.start + self.length, bytes) };
        self.length = end;
        Ok(())
    }

    pub fn word(&mut self, word: &Word) -> Result<()> {
        self.bytes(word)
    }

    pub fn number(&mut self, number: u64) -> Result<()> {
        self.bytes(&[0; 24])?;
        self.bytes(&number.to_be_bytes())
    }

    pub fn wide(&mut self, low: u64, high: u64) -> Result<()> {
        self.bytes(&[0; 16])?;
        self.bytes(&high.to_be_bytes())?;
        self.bytes(&low.to_be_bytes())
    }

    pub fn address(&mut self, address: &Address) -> Result<()> {
        self.bytes(&[0; 12])?;
        self.bytes(address)
    }

    /// Write a part of the header, which lies before the value.
    pub fn put_header(&mut self, bytes: &[u8], at: usize) {
        assert!(at + bytes.len() <= self.header);
        unsafe { host::write(self.start + at, bytes) };
    }

    /// Write word `index` of the value anew.
    pub fn replace_word(&mut self, index: usize, word: &Word) {
        let at = self.header + (index << 5);
        assert!(at + 32 <= self.length);
        unsafe { host::write(self.start + at, word) };
    }

    pub fn get_value(&self) -> &'static [u8] {
        unsafe { core::slice::from_raw_parts((self.start + self.header) as *const u8, self.length - self.header) }
    }

    pub fn get_event(&self) -> &'static [u8] {
        unsafe { core::slice::from_raw_parts(self.start as *const u8, self.length) }
    }
}

/// First byte of the work memory that no writer uses; a multiple of 16.
pub const FREE: usize = host::HEAP + MAX_EVENT + 1_024;

/// Reader of instruction data; numbers are little-endian.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    #[inline(always)]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        require(count <= self.bytes.len(), Fail::Malformed)?;
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        Ok(taken)
    }

    #[inline(always)]
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let bytes = self.take(N)?;
        Ok(unsafe { &*(bytes.as_ptr() as *const [u8; N]) })
    }

    /// `count` arrays of `N` bytes, one after the other.
    #[inline(always)]
    pub fn arrays<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]]> {
        let bytes = self.take(N.wrapping_mul(count))?; // both below 2^8
        Ok(unsafe { core::slice::from_raw_parts(bytes.as_ptr() as *const [u8; N], count) })
    }

    #[inline(always)]
    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    #[inline(always)]
    pub fn flag(&mut self) -> Result<bool> {
        let byte = self.byte()?;
        require(byte <= 1, Fail::Malformed)?;
        Ok(byte == 1)
    }

    #[inline(always)]
    pub fn count(&mut self) -> Result<usize> {
        Ok(usize::from(self.byte()?))
    }

    #[inline(always)]
    pub fn number(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(*self.array()?))
    }

    #[inline(always)]
    pub fn word(&mut self) -> Result<&'a Word> {
        self.array()
    }

    pub fn done(&self) -> Result<()> {
        require(self.bytes.is_empty(), Fail::Malformed)
    }
}
