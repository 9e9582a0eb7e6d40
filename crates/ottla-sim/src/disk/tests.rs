use std::collections::BTreeSet;

use ottla_base::Timestamp;

use super::*;

fn disk(seed: u64) -> SimulatedDisk {
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    SimulatedDisk::new(Random::new(seed, 0), clock)
}

fn survivors(seed: u64, work: impl Fn(&dyn Disk, &Path)) -> Vec<(String, Vec<u8>)> {
    let disk = disk(seed);
    work(&disk, disk.root());
    disk.check();
    disk.lose_power();
    disk.check();
    let name = |(path, bytes): (PathBuf, _)| (path.display().to_string(), bytes);
    disk.files().into_iter().map(name).collect()
}

#[test]
fn what_is_synced_with_its_name_survives() {
    for seed in 0..20 {
        let found = survivors(seed, |disk, root| {
            disk.create_directory(&root.join("d")).unwrap();
            let file = disk.write(&root.join("d/f"), b"123").unwrap();
            disk.sync_data(&file).unwrap();
            disk.sync_directory(&root.join("d")).unwrap();
            disk.sync_directory(root).unwrap();
            disk.write_all_at(&file, b"45", 3).unwrap();
        });
        let (name, bytes) = &found[0];
        assert_eq!((found.len(), name.as_str(), &bytes[..3]), (1, "d/f", b"123".as_slice()));
    }
}

#[test]
fn without_its_name_the_best_synced_file_may_be_gone_and_without_its_bytes_the_name_may_be_empty() {
    let mut found = BTreeSet::new();
    for seed in 0..100 {
        found.insert(survivors(seed, |disk, root| {
            let file = disk.write(&root.join("new"), b"12").unwrap();
            disk.sync_data(&file).unwrap();
            disk.write(&root.join("old"), b"x").unwrap();
            disk.rename(&root.join("new"), &root.join("old")).unwrap();
        }));
    }
    let file = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    assert!(found.contains(&Vec::new()));
    assert!(found.contains(&vec![file("new", b"12")]));
    assert!(found.contains(&vec![file("new", b"12"), file("old", b"")]));
    assert!(found.contains(&vec![file("old", b"12")]));
    assert!(!found.iter().any(|files| files.contains(&file("new", b""))), "{found:?}");
}

#[test]
fn a_directory_that_was_removed_may_come_back_with_a_part_of_what_was_in_it() {
    let mut found = BTreeSet::new();
    for seed in 0..100 {
        let names = survivors(seed, |disk, root| {
            disk.create_directory(&root.join("d")).unwrap();
            for name in ["d/a", "d/b"] {
                disk.write(&root.join(name), b"").unwrap();
            }
            disk.sync_file_system(root, &File::open(root).unwrap()).unwrap();
            disk.remove_directory(&root.join("d")).unwrap();
        });
        found.insert(names.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    }
    let found: Vec<Vec<&str>> =
        found.iter().map(|it| it.iter().map(String::as_str).collect()).collect();
    assert_eq!(found, [vec![], vec!["d/a", "d/b"], vec!["d/b"]]);
}

#[test]
fn a_process_that_stops_does_nothing_more_and_the_next_one_finds_what_it_wrote() {
    let disk = disk(1);
    let path = disk.root().join("f");
    let file = (&disk as &dyn Disk).write(&path, b"1").unwrap();
    disk.set_plan(Plan { stop_in: Some(1), ..Plan::default() });
    (&disk as &dyn Disk).write_all_at(&file, b"2", 1).unwrap();
    assert!((&disk as &dyn Disk).write_all_at(&file, b"3", 2).is_err());
    assert!(disk.sync_data(&file).is_err() && disk.has_stopped());
    disk.restart();
    assert_eq!((&disk as &dyn Disk).read(&path).unwrap(), b"12");
}

#[test]
fn every_kind_of_fault_happens_and_is_counted() {
    let disk = disk(1);
    disk.enter("a test");
    let some = Plan {
        no_space: 2_000,
        read_error: 2_000,
        write_error: 2_000,
        name_error: 2_000,
        sync_error: 2_000,
        ..Plan::default()
    };
    disk.set_plan(some);
    for n in 0..400 {
        let path = disk.root().join(format!("{n}"));
        let Ok(file) = disk.open(&path, Open::Create) else { continue };
        let _ = disk.write_at(&file, &mut [IoSlice::new(&[1; 100])], 0);
        let _ = disk.read_at(&file, &mut [0; 10], 0);
        let _ = disk.sync_data(&file);
        let _ = disk.sync_directory(disk.root());
        let _ = disk.set_len(&file, 3);
        let _ = disk.rename(&path, &disk.root().join("x"));
    }
    let counts = disk.counts();
    let kinds = ["Open", "Create", "Name", "Read", "Write", "SetLen", "Sync", "SyncDirectory"];
    let kinds = kinds.map(|kind| format!("EIO at a {kind}"));
    let wanted: Vec<&str> = kinds.iter().map(String::as_str).chain(["ENOSPC in a test"]).collect();
    assert_eq!(counts.missing(&wanted[1..]), Vec::<&str>::new(), "{counts}");
}
