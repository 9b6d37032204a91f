//! What drawing the window leaves mapped in this process: code and constants of WebKit and of Mesa,
//! some 60 MiB that nobody needs until the window is opened again. They are unchanged pages of files.
//! Unmapped, they cost this process nothing; who needs one again finds it in the page cache, or it is
//! read from the file as after the start.

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Size of one page's entry in `/proc/self/pagemap`, bytes; see `pagemap.rst` of the kernel.
const ENTRY: usize = 8;
const IS_PRESENT: u64 = 1 << 63;
const IS_SWAPPED: u64 = 1 << 62;
const IS_OF_A_FILE: u64 = 1 << 61;
/// Entries that are read at once.
const BATCH: usize = 512;

/// Gives back the memory that is not in use: pages of libraries, and what the allocator holds freed.
pub(crate) fn give_back() {
    match File::open("/proc/self/pagemap") {
        Ok(mut pages) => {
            #[expect(unsafe_code, reason = "the loader has no other call for it")]
            // SAFETY: the callback has the type that the loader calls and does not unwind; its data is
            // the open file, which lives until the call is over.
            unsafe {
                libc::dl_iterate_phdr(Some(drop_parts), (&raw mut pages).cast());
            }
        }
        Err(error) => tracing::debug!(%error, "the pages of this process are not known"),
    }
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator has no other call for it")]
    // SAFETY: it takes no pointer and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Drops the pages of those parts of a loaded file that are not for writing. The loader calls it, with
/// its lock held, so that no library goes away meanwhile; see `dl_iterate_phdr(3)`.
#[expect(unsafe_code, reason = "the loader calls it with pointers")]
unsafe extern "C" fn drop_parts(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    pages: *mut c_void,
) -> c_int {
    const GO_ON: c_int = 0;
    #[expect(unsafe_code, reason = "what the loader hands out is behind pointers")]
    // SAFETY: the loader gives a description that is good during the call, with a table of `dlpi_phnum`
    // parts; the data is the file that `give_back` passed.
    let (base, parts, pages) = unsafe {
        let object = &*object;
        let parts = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        (object.dlpi_addr, parts, &*pages.cast::<File>())
    };
    for part in parts {
        if part.p_type != libc::PT_LOAD || part.p_flags & libc::PF_W != 0 {
            continue;
        }
        let (Ok(start), Ok(length)) = (
            // Addresses in ELF wrap around; those of the kernel's own object may.
            usize::try_from(base.wrapping_add(part.p_vaddr)),
            usize::try_from(part.p_filesz),
        ) else {
            continue;
        };
        // The last page may go on as a part that is written to.
        let whole = start.next_multiple_of(page_size())..(start + length) & !(page_size() - 1);
        if whole.is_empty() || !is_unchanged(pages, &whole).unwrap_or(false) {
            continue;
        }
        #[expect(unsafe_code, reason = "the kernel has no other call for it")]
        // SAFETY: the range lies within one part of a loaded file, and no page of it differs from the
        // file: what is read there later is the same again.
        let dropped = unsafe {
            madvise(
                whole.start as *mut c_void,
                whole.len(),
                Advice::LinuxDontNeed,
            )
        };
        // What the kernel itself has loaded cannot be dropped; then it stays.
        let _ = dropped;
    }
    GO_ON
}

/// Whether all pages of a range are those of its file. Some drivers write into their own code.
fn is_unchanged(pages: &File, range: &Range<usize>) -> io::Result<bool> {
    let mut entries = [0; BATCH * ENTRY];
    let (mut next, end) = (range.start / page_size(), range.end / page_size());
    while next < end {
        let count = BATCH.min(end - next);
        let batch = &mut entries[..count * ENTRY];
        let offset = u64::try_from(next * ENTRY).map_err(io::Error::other)?;
        pages.read_exact_at(batch, offset)?;
        let (words, _) = batch.as_chunks::<ENTRY>();
        let is_changed = words
            .iter()
            .map(|word| u64::from_ne_bytes(*word))
            .any(|entry| entry & (IS_PRESENT | IS_SWAPPED) != 0 && entry & IS_OF_A_FILE == 0);
        if is_changed {
            return Ok(false);
        }
        next += count;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of this program and its libraries in memory, KiB.
    fn of_files() -> u64 {
        let rollup = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("RssFile:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }

    /// Brings every page of the program and its libraries that is not for writing into memory: what is
    /// read through the kernel is mapped as if the process had read it itself.
    fn read_files() {
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut buffer = vec![0; 1024 * 1024];
        for line in maps.lines().filter(|line| line.contains('/')) {
            let mut words = line.split_whitespace();
            let (range, permissions) = (words.next().unwrap(), words.next().unwrap());
            if !matches!(permissions, "r--p" | "r-xp") {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let mut next = u64::from_str_radix(start, 16).unwrap();
            let end = u64::from_str_radix(end, 16).unwrap();
            while next < end {
                let length = usize::try_from(end - next).unwrap().min(buffer.len());
                // A library may be longer in memory than its file; such pages cannot be read.
                match memory.read_at(&mut buffer[..length], next) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => next += u64::try_from(count).unwrap(),
                }
            }
        }
    }

    #[test]
    fn pages_of_files_are_given_back_and_everything_still_works() {
        read_files();
        let before = of_files();
        give_back();
        let after = of_files();
        assert!(after < before / 2, "{before} KiB before, {after} KiB after");
        assert_eq!("münze".to_uppercase(), "MÜNZE");
    }

    #[test]
    fn a_page_that_was_written_to_is_known() {
        let pages = File::open("/proc/self/pagemap").unwrap();
        let memory = vec![7_u8; 4 * page_size()];
        let start = (memory.as_ptr() as usize).next_multiple_of(page_size());
        assert!(!is_unchanged(&pages, &(start..start + page_size())).unwrap());
        assert!(memory.iter().all(|byte| *byte == 7));
    }
}
