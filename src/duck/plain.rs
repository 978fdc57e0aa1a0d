//! Values that a vector stores as numbers, or as structs of them.

use std::ops::Range;

use super::layout::Storage;

mod sealed {
    /// Types that vectors hold.
    ///
    /// # Safety
    /// Any bits are a value of the type, whose size and alignment are those of `STORAGE` in DuckDB.
    pub unsafe trait Stored: Copy {
        const STORAGE: super::Storage;
    }
}

/// Plain types that a vector may hold: numbers, and structs of them.
pub trait Plain: sealed::Stored {}

impl<T: sealed::Stored> Plain for T {}

macro_rules! stored {
    ($($ty:ty => $storage:ident,)*) => {
        $(
            // SAFETY: any bits are a value of these, and DuckDB has the same type for the storage.
            unsafe impl sealed::Stored for $ty {
                const STORAGE: Storage = Storage::$storage;
            }
        )*
    };
}
stored! {
    u8 => U8,
    i8 => I8,
    u16 => U16,
    i16 => I16,
    u32 => U32,
    i32 => I32,
    u64 => U64,
    i64 => I64,
    f32 => F32,
    f64 => F64,
    RawHugeInt => HugeInt,
    RawInterval => Interval,
    RawListEntry => ListEntry,
}

/// 128 bits as DuckDB stores them: aligned to 8 bytes, which `i128` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RawHugeInt {
    lower: u64,
    upper: u64,
}

impl RawHugeInt {
    /// The bits; HUGEINT and DECIMAL read them as signed.
    pub fn bits(self) -> u128 {
        u128::from(self.upper) << 64 | u128::from(self.lower)
    }
}

/// Where a list's elements are in the child vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RawListEntry {
    /// The first element's row.
    pub offset: u64,
    /// The number of elements.
    pub length: u64,
}

impl RawListEntry {
    /// The rows of the child vector that are this list.
    pub fn range(self) -> Range<usize> {
        self.offset as usize..(self.offset + self.length) as usize
    }
}

/// An INTERVAL as DuckDB stores it. Its parts do not carry over: a month has no fixed number of days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RawInterval {
    /// Whole months.
    pub months: i32,
    /// Days beyond them.
    pub days: i32,
    /// Microseconds beyond those.
    pub micros: i64,
}
