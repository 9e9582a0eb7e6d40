use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::*;

fn file_with(contents: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(contents).unwrap();
    file
}

fn contents(file: &mut File) -> Vec<u8> {
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_vectored_write_lands_whole_and_in_order_at_its_position() {
    let mut file = file_with(b"0123456789");
    let mut buffers =
        [IoSlice::new(b""), IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
    write_all_vectored_at(&file, &mut buffers, 8).unwrap();
    assert_eq!(contents(&mut file), b"01234567abcde");
}

#[test]
fn more_buffers_than_one_call_takes_are_written_all_the_same() {
    let mut file = file_with(b"");
    let bytes: Vec<u8> = (0..3000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut buffers: Vec<IoSlice<'_>> = bytes.chunks(1).map(IoSlice::new).collect();
    write_all_vectored_at(&file, &mut buffers, 0).unwrap();
    assert_eq!(contents(&mut file), bytes);
}

#[test]
fn the_portable_vectored_write_writes_the_first_buffer_that_has_bytes() {
    let mut file = file_with(b"");
    let buffers = [IoSlice::new(b""), IoSlice::new(b"ab"), IoSlice::new(b"c")];
    assert_eq!(portable::write_vectored_at(&file, &buffers, 0).unwrap(), 2);
    assert_eq!(contents(&mut file), b"ab");
}

#[test]
fn a_read_beyond_the_end_is_short() {
    let file = file_with(b"0123456789");
    let mut buffer = [0; 8];
    assert_eq!(read_full_at(&file, &mut buffer, 6).unwrap(), 4);
    assert_eq!(&buffer[..4], b"6789");
    assert_eq!(read_full_at(&file, &mut buffer, 99).unwrap(), 0);
}

#[test]
fn both_ways_of_sending_a_file_put_the_same_bytes_on_the_socket() {
    let file = file_with(b"0123456789");
    for send in [send_file, portable::send_file] {
        let (sender, mut receiver) = UnixStream::pair().unwrap();
        assert_eq!(send(sender.as_fd(), &file, 3, 4).unwrap(), 4);
        assert_eq!(send(sender.as_fd(), &file, 10, 4).unwrap(), 0);
        drop(sender);
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"3456");
    }
}

#[test]
fn both_ways_of_sending_a_file_report_a_full_socket() {
    let file = file_with(&vec![7; 1 << 20]);
    for send in [send_file, portable::send_file] {
        let (sender, _receiver) = UnixStream::pair().unwrap();
        sender.set_nonblocking(true).unwrap();
        let error = loop {
            match send(sender.as_fd(), &file, 0, 1 << 20) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_file_that_was_just_written_is_in_the_cache() {
    let file = file_with(&vec![7; 300_000]);
    if cfg!(target_os = "linux") {
        assert!(is_cached(&file, 0, 300_000));
        assert!(is_cached(&file, 299_999, 1));
        assert!(is_cached(&file, 10, 0));
    }
    assert!(!portable::is_cached(&file, 0, 1));
}

#[test]
fn a_lock_excludes_another_handle_until_it_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".lock");
    let first = File::create(&path).unwrap();
    let second = File::create(&path).unwrap();
    assert!(lock_exclusive(&first).unwrap());
    assert!(!lock_exclusive(&second).unwrap());
    drop(first);
    assert!(lock_exclusive(&second).unwrap());
}

/// Only another process would be kept away by it.
#[test]
#[cfg(target_os = "linux")]
fn a_lock_is_one_that_java_sees_too() {
    use std::os::unix::fs::MetadataExt;

    let file = tempfile::tempfile().unwrap();
    assert!(lock_exclusive(&file).unwrap());
    let (process, inode) = (std::process::id().to_string(), file.metadata().unwrap().ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let is_ours = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&"POSIX")
            && words.contains(&"WRITE")
            && words.contains(&process.as_str())
            && line.contains(&format!(":{inode} 0 EOF"))
    };
    assert_eq!(locks.lines().filter(is_ours).count(), 1, "{locks}");
}

#[test]
fn reserving_blocks_does_not_change_the_length() {
    let file = file_with(b"0123456789");
    allocate(&file, 0, 1 << 20).unwrap();
    portable::allocate(&file, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
}

#[test]
fn syncing_works_on_files_directories_and_file_systems() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("file")).unwrap();
    sync_data(&file).unwrap();
    sync_directory(directory.path()).unwrap();
    if cfg!(target_os = "linux") {
        sync_filesystem(&file).unwrap();
    }
}

#[test]
fn random_bytes_differ_from_call_to_call() {
    for fill in [random_bytes, portable::random_bytes] {
        let (mut first, mut second) = ([0; 16], [0; 16]);
        fill(&mut first).unwrap();
        fill(&mut second).unwrap();
        assert_ne!(first, second);
    }
}

#[test]
fn the_open_file_limit_is_a_usable_number() {
    assert!(raise_open_file_limit().unwrap() >= 256);
}

#[test]
fn there_is_no_more_room_to_take_than_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let space = disk_space(directory.path()).unwrap();
    assert!(0 < space.usable && space.usable <= space.total, "{space:?}");
    assert!(disk_space(&directory.path().join("gone")).is_err());
}
