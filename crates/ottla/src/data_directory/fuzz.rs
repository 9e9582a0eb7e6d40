//! Seeded mutations of what formatting writes: it is read or refused, and nothing panics.

use super::*;

#[path = "../../../../fuzz/src/random.rs"]
mod random;

use bytes::Bytes;
use ottla_base::SplitMix64;
use ottla_metadata::feature;
use random::{mutate, seeds};

const ROUNDS: u64 = 400;
const NODE: BrokerId = BrokerId(1);

/// Each file by its name, with everything that a directory of metadata can begin with.
fn sound() -> Vec<(String, Vec<u8>)> {
    let root = tempfile::tempdir().unwrap();
    let controllers = "1@localhost:9093:JEXY6aqzQY-32P5TStzaFg".parse().unwrap();
    let level = |name: &str, level: i16| (name.to_owned(), level);
    let levels =
        [level(feature::METADATA_VERSION, 30), level(feature::ELIGIBLE_LEADER_REPLICAS, 1)];
    let stamp = Stamp {
        cluster_id: "MvDxzVmcRsaTz33bUuRU6A",
        initial_controllers: Some((&controllers, "CONTROLLER")),
        levels: Some(&levels.into()),
        forming: true,
        joined: Some(&["localhost:9093".to_owned()]),
    };
    format(root.path(), root.path(), NODE, &stamp).unwrap();
    let initial = format!("{METADATA_LOG}/{}", initial_controllers::FILE);
    let names = [FILE, FORMING, JOINED, bootstrap::FILE, &initial];
    names.map(|name| (name.to_owned(), fs::read(root.path().join(name)).unwrap())).into()
}

/// As a start reads them. Returns whether all of them are usable.
fn read(root: &Path) -> bool {
    let paths = [root.to_owned()];
    let _ = (formatted(&paths), foreign::check(root, METADATA_LOG));
    let survey = Survey::of(&paths, root, NODE);
    let survey = survey.map(|survey| _ = survey.standing());
    let (controllers, levels) = (read_initial_controllers(root), bootstrap::read(root));
    for (name, level) in levels.iter().flatten() {
        let supported = feature::supported().find(|(known, _)| known == name);
        assert!(supported.is_some_and(|(_, levels)| *level == 0 || levels.contains(*level)));
    }
    survey.is_ok() && controllers.is_ok() && levels.is_ok()
}

/// Puts the checksums of batches right; a file of something else stays what it is.
fn repair(file: Vec<u8>) -> Vec<u8> {
    let mut rest = &*file;
    let mut repaired = Vec::new();
    while let Some((batch, behind)) = first_batch(rest) {
        let crc = ottla_records::crc32c(&batch[21..]);
        repaired.extend([&batch[..17], &crc.to_be_bytes(), &batch[21..]].concat());
        rest = behind;
    }
    repaired.extend(rest);
    repaired
}

fn first_batch(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = ottla_records::BatchHeader::parse(bytes).ok()?;
    bytes.split_at_checked(header.size_in_bytes())
}

#[test]
fn mutated_files_of_a_formatted_directory_are_read_or_refused_and_never_panic() {
    let sound = sound();
    let (mut usable, mut refused) = (0, 0);
    for seed in seeds(ROUNDS) {
        let mut random = SplitMix64::new(seed);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(METADATA_LOG)).unwrap();
        for (name, file) in &sound {
            if random.below(12) == 0 {
                continue;
            }
            let mut file = file.clone();
            if random.below(3) == 0 {
                mutate(&mut file, &mut random);
            }
            let file = if random.below(3) > 0 { repair(file) } else { file };
            fs::write(root.path().join(name), file).unwrap();
        }
        let outcome = std::panic::catch_unwind(|| read(root.path()));
        match outcome.unwrap_or_else(|_| panic!("seed {seed} panics")) {
            true => usable += 1,
            false => refused += 1,
        }
    }
    assert!(usable > refused / 20 && refused > usable / 20, "{usable} usable, {refused} refused");
}

#[test]
fn levels_that_this_release_does_not_know_begin_no_cluster() {
    let level = |name: &str, level: i16| (name.to_owned(), level);
    let levels =
        [level(feature::METADATA_VERSION, 30), level(feature::ELIGIBLE_LEADER_REPLICAS, 77)];
    let file = bootstrap::to_checkpoint(&levels.into(), ottla_base::Timestamp(7)).unwrap();
    let refused = bootstrap::from_checkpoint(Bytes::from(file)).unwrap_err().to_string();
    assert!(
        refused.contains("eligible.leader.replicas.version") && refused.contains("77"),
        "{refused}"
    );
}
