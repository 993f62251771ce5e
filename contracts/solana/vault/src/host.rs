//! What the machine offers: hashes, recovery of signers, derived addresses, sysvars, memory. The one place of system
//! calls; every pointer handed over is that of a live Rust value of the length that is said.

use core::mem::MaybeUninit;

use pinocchio::{syscalls, Address};

use crate::values::{require, Fail, Result, Word};

/// Work memory: the machine gives each call of the program 32 KiB of zeros here; this program has no allocator.
pub const HEAP: usize = pinocchio::entrypoint::HEAP_START_ADDRESS as usize;

pub fn keccak(parts: &[&[u8]]) -> Word {
    let mut out = [0; 32];
    unsafe { syscalls::sol_keccak256(parts.as_ptr().cast(), parts.len() as u64, out.as_mut_ptr()) };
    out
}

pub fn sha256(parts: &[&[u8]]) -> Word {
    let mut out = [0; 32];
    unsafe { syscalls::sol_sha256(parts.as_ptr().cast(), parts.len() as u64, out.as_mut_ptr()) };
    out
}

/// Public key (64 bytes) whose signature r || s with recovery id `parity` is over `digest`; None if there is none.
pub fn recover_key(digest: &Word, parity: u64, signature: &[u8; 64]) -> Option<[u8; 64]> {
    let mut out = [0; 64];
    let code =
        unsafe { syscalls::sol_secp256k1_recover(digest.as_ptr(), parity, signature.as_ptr(), out.as_mut_ptr()) };
    (code == 0).then_some(out)
}

/// Canonical derived address of the seeds, and its bump. Only the canonical one is unique.
pub fn find_address(seeds: &[&[u8]], program: &Address) -> Result<(Word, u8)> {
    let mut out: Word = [0; 32];
    let mut bump = [0u8; 1];
    let code = unsafe {
        syscalls::sol_try_find_program_address(
            seeds.as_ptr().cast(),
            seeds.len() as u64,
            program.as_array().as_ptr(),
            out.as_mut_ptr(),
            bump.as_mut_ptr(),
        )
    };
    require(code == 0, Fail::Record)?;
    Ok((out, bump[0]))
}

/// Time of the block in whole seconds.
pub fn get_time() -> Result<u64> {
    let mut time = [0u8; 8]; // unix_timestamp, after slot, epoch start, epoch and leader schedule epoch
    let code = unsafe {
        syscalls::sol_get_sysvar(pinocchio::sysvars::clock::CLOCK_ID.as_array().as_ptr(), time.as_mut_ptr(), 32, 8)
    };
    require(code == 0, Fail::Expiry)?;
    u64::try_from(i64::from_le_bytes(time)).map_err(|_| Fail::Expiry)
}

/// Lamports that an account of `bytes` must hold.
pub fn get_rent(bytes: u64) -> Result<u64> {
    let mut rent = [0u8; 16]; // lamports per byte and year, years (a float)
    let code = unsafe {
        syscalls::sol_get_sysvar(pinocchio::sysvars::rent::RENT_ID.as_array().as_ptr(), rent.as_mut_ptr(), 0, 16)
    };
    require(code == 0, Fail::Rent)?;
    let [a, b, c, d, e, f, g, h, rest @ ..] = rent;
    let per_byte = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    // no float unit here: the two values that clusters have had
    let years = match u64::from_le_bytes(rest) {
        0x4000_0000_0000_0000 => 2,
        0x3ff0_0000_0000_0000 => 1,
        _ => return Err(Fail::Rent),
    };
    require(per_byte < 1 << 32, Fail::Rent)?;
    Ok((bytes + 128).wrapping_mul(per_byte).wrapping_mul(years))
}

/// Value of the call.
pub fn set_value(value: &[u8]) {
    unsafe { syscalls::sol_set_return_data(value.as_ptr(), value.len() as u64) };
}

/// Write `bytes` at a place of the work memory.
///
/// # Safety
/// `at .. at + bytes.len()` must be work memory that nothing else uses.
pub unsafe fn write(at: usize, bytes: &[u8]) {
    core::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len());
}

/// A table of `N` values in work memory, all bytes zero at first.
///
/// # Safety
/// The place must be aligned, used by nothing else, and zero must be a value of `T`.
pub unsafe fn table<T, const N: usize>(at: usize) -> &'static mut [T; N] {
    let place: &mut MaybeUninit<[T; N]> = &mut *(at as *mut MaybeUninit<[T; N]>);
    place.assume_init_mut()
}

/// The compiler calls these by name; there is no library that has them.
mod memory {
    use pinocchio::syscalls;

    #[no_mangle]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
        syscalls::sol_memcpy_(to, from, n as u64);
        to
    }

    #[no_mangle]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
        syscalls::sol_memmove_(to, from, n as u64);
        to
    }

    #[no_mangle]
    unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
        syscalls::sol_memset_(to, value as u8, n as u64);
        to
    }

    #[no_mangle]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
        let mut result = 0i32;
        syscalls::sol_memcmp_(a, b, n as u64, &mut result);
        result
    }

    #[no_mangle]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
        memcmp(a, b, n)
    }
}
