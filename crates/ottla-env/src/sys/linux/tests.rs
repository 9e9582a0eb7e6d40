use std::cell::Cell;
use std::os::unix::fs::FileExt as _;
use std::thread;

use super::super::{read_full_at, sync_data};
use super::*;

/// In pages.
const LEN: usize = 64;

fn page() -> usize {
    rustix::param::page_size()
}

/// Files in memory are always in the page cache, and that is what a directory for temporary ones may be.
fn file_on_disk(len: usize) -> File {
    let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    file.write_all_at(&vec![7; len], 0).unwrap();
    file
}

/// Zero on a kernel that cannot count, and where the pages belong to another file.
fn counted(file: &File) -> u64 {
    count_cached(file, 0, page()).unwrap_or(0)
}

/// A page that somebody just holds, as whoever flushes all of the file system does, stays: then once more.
fn drop_all(file: &File) {
    let all = LEN * page();
    for _ in 0..1000 {
        drop_cached(file, 0, all as u64).unwrap();
        if count_cached(file, 0, all).unwrap_or(0) == 0 {
            return;
        }
        sync_data(file).unwrap();
    }
    panic!("the page cache keeps a clean file");
}

/// A file of which only these pages are in the page cache.
fn file_with_cached(pages: &[usize]) -> File {
    let file = file_on_disk(LEN * page());
    sync_data(&file).unwrap();
    drop_all(&file);
    advise_random(&file).unwrap();
    for number in pages {
        read_full_at(&file, &mut [0], (number * page()) as u64).unwrap();
    }
    file
}

/// As [`is_cached`] finds it where pages can be counted, and where they cannot.
fn both_ways(file: &File, position: usize, len: usize) -> [bool; 2] {
    let unable = |_: &File, _, _| Err(Errno::NOSYS.into());
    let position = position as u64;
    [
        is_cached_by(file, position, len, &AtomicBool::new(true), count_cached),
        is_cached_by(file, position, len, &AtomicBool::new(true), unable),
    ]
}

#[test]
fn a_range_is_cached_if_every_page_of_it_is() {
    let (file, page) = (file_with_cached(&[0, 1, 2, 5]), page());
    for (position, len) in
        [(0, 3 * page), (page - 1, 2), (2 * page + 1, page - 1), (5 * page + 7, 1), (page, 0)]
    {
        assert_eq!(both_ways(&file, position, len), [true; 2]);
    }
    for (position, len) in
        [(2 * page + 1, page), (4 * page, 1), (0, LEN * page), (3 * page, 2 * page)]
    {
        // Another one each time: to look at a page brings it in.
        let file = file_with_cached(&[0, 1, 2, 5]);
        assert_eq!(both_ways(&file, position, len), [false; 2]);
    }
}

#[test]
fn counting_finds_the_page_that_is_missing_between_two_that_are_looked_at() {
    let page = page();
    let missing = LOOK_BYTES / page - 1;
    let all_but_one: Vec<_> = (0..LEN).filter(|number| *number != missing).collect();
    let file = file_with_cached(&all_but_one);
    let is_looked_over = counted(&file) == 0;
    assert_eq!(both_ways(&file, 0, LEN * page), [is_looked_over, true]);
    let behind = missing + 1;
    assert_eq!(both_ways(&file, behind * page, (LEN - behind) * page), [true; 2]);
}

#[test]
fn nothing_is_cached_of_what_was_evicted() {
    let file = file_with_cached(&[]);
    assert_eq!(both_ways(&file, 0, LEN * page()), [false; 2]);
    assert_eq!(both_ways(&file_with_cached(&[]), LEN * page() - 1, 1), [false; 2]);
}

#[test]
fn what_is_brought_in_is_cached_and_nothing_beyond_it() {
    let (len, page) = (LEN * page(), page());
    for bring_in in [bring_in, portable::bring_in] {
        let file = file_with_cached(&[]);
        assert_eq!(bring_in(&file, page as u64 + 1, 20 * page).unwrap(), 20 * page);
        assert!(is_cached(&file, page as u64, 21 * page));
        assert!(!is_cached(&file, 22 * page as u64, 1));
        assert_eq!(bring_in(&file, (len - 5) as u64, page).unwrap(), 5);
        assert_eq!(bring_in(&file, len as u64, page).unwrap(), 0);
    }
    let file = file_with_cached(&[]);
    super::super::read_ahead(&file, 0, 2 * len).unwrap();
    assert_eq!(both_ways(&file, 0, len), [true; 2]);
}

#[test]
fn what_cannot_be_read_cannot_be_brought_in() {
    let unreadable = OpenOptions::new().write(true).open("/dev/null").unwrap();
    for bring_in in [bring_in, portable::bring_in] {
        bring_in(&unreadable, 0, 1).unwrap_err();
    }
}

#[test]
fn the_null_device_is_one() {
    assert!(null_device().is_some());
}

#[test]
fn what_is_dirty_or_on_its_way_to_the_disk_is_cached() {
    let len = 16 << 20;
    let file = file_on_disk(len);
    assert_eq!(both_ways(&file, 0, len), [true; 2]);
    thread::scope(|scope| {
        let flush = scope.spawn(|| sync_data(&file));
        while !flush.is_finished() {
            assert_eq!(both_ways(&file, 0, len), [true; 2]);
        }
        flush.join().unwrap().unwrap();
    });
    assert_eq!(both_ways(&file, 0, len), [true; 2]);
}

#[test]
fn who_cannot_count_is_asked_once() {
    let file = file_on_disk(page());
    for refusal in [Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP] {
        let (can_count, asked) = (AtomicBool::new(true), Cell::new(0));
        let count = |_: &File, _, _| {
            asked.set(asked.get() + 1);
            Err(refusal.into())
        };
        for _ in 0..3 {
            assert!(is_cached_by(&file, 0, page(), &can_count, count));
        }
        assert_eq!(asked.get(), 1);
    }
}

#[test]
fn where_the_pages_belong_to_another_file_they_are_looked_at() {
    let is_cached = |file: &File| {
        let none_are_its_own = |_: &File, _, _| Ok(0);
        is_cached_by(file, 0, LEN * page(), &AtomicBool::new(true), none_are_its_own)
    };
    assert!(is_cached(&file_on_disk(LEN * page())));
    assert!(!is_cached(&file_with_cached(&[])));
}

#[test]
fn this_kernel_counts_pages_or_says_that_it_cannot() {
    match count_cached(&file_on_disk(LEN * page()), 1, LEN * page() - 1) {
        Ok(pages) => assert!([0, LEN as u64].contains(&pages), "{pages}"),
        Err(error) => {
            let refusals = [Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP];
            assert!(refusals.contains(&Errno::from_io_error(&error).unwrap()), "{error}");
        }
    }
}

#[test]
fn a_kernel_from_before_linux_5_8_is_not_asked_to_sync_a_whole_file_system() {
    for new in ["5.8.0", "5.8-rc1", "5.10.0-23-amd64", "6.1.119+", "10.0", "5.15.167.4-microsoft"] {
        assert!(syncfs_reports_failures(new), "{new}");
    }
    for old in ["5.7.19", "4.18.0-553.el8_10.x86_64", "4.20", "3.10.0", "", "6", "six.eight", "."] {
        assert!(!syncfs_reports_failures(old), "{old}");
    }
}
