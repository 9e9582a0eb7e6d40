//! Consumer groups and administration with every client library (shell).
//!
//! Members poll in the background and commit what they were given; the tests watch who is assigned
//! what, and that every record reaches the group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::adapter::{Adapter, Library, Writing, number, object, part};
use super::record::Record;
use super::session::{Session, eventually, now_ms};
use super::{Length, Test};

const JOIN: &str = "JoinGroup(11)";
const PARTITIONS: i32 = 6;
/// How long a group waits for a member that says nothing.
const SESSION_MS: u32 = 3_000;
/// For a rebalance on a machine that has other things to do, or a broker's return.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn tests(length: Length) -> Vec<Test> {
    let libraries = length.libraries();
    let mut tests = Vec::new();
    for &library in &libraries {
        tests.extend(group_tests(library));
        tests.extend(admin_tests(library));
    }
    let all: Vec<Library> = libraries.clone();
    let name = "all clients: members of every library share one group, and each record reaches one";
    tests.push(Test::new(name, &[], move |session| shared_group(session, &all)).once_served(JOIN));
    let name = "all clients: groups of every library carry on after kill -9 of the broker";
    tests.push(
        Test::new(name, &[], move |session| broker_killed(session, &libraries)).once_served(JOIN),
    );
    tests
}

fn of(library: Library, sentence: &str, run: fn(&mut Session, Library) -> Result<()>) -> Test {
    let name = format!("{}: {sentence}", library.name());
    Test::new(name, library.needs(), move |session| run(session, library))
}

fn group_tests(library: Library) -> Vec<Test> {
    let mut tests: Vec<Test> = library
        .assignors()
        .iter()
        .map(|&assignor| {
            let name = format!(
                "{}: members join and leave, and no record is missed, assignor {assignor}",
                library.name()
            );
            Test::new(name, library.needs(), move |session| {
                members_come_and_go(session, library, assignor)
            })
        })
        .collect();
    tests.push(of(library, "a member killed with kill -9 is replaced", member_killed));
    tests.push(of(library, "a group goes on where it committed", resume));
    if library.has_static_members() {
        let sentence = "a static member returns to its partitions without a rebalance";
        tests.push(of(library, sentence, static_member));
    }
    tests.into_iter().map(|test| test.once_served(JOIN)).collect()
}

fn admin_tests(library: Library) -> Vec<Test> {
    let mut tests = Vec::new();
    let asks = |requests: &[&str]| requests.iter().all(|request| !library.lacks(request));
    if asks(&["set-configs"]) {
        let test = of(library, "a topic's configuration is changed and read", configs);
        tests.push(test.once_served("AlterConfigs(33)"));
    }
    if asks(&["add-partitions", "partitions"]) {
        let test = of(library, "a topic gets more partitions", more_partitions);
        tests.push(test.once_served("CreatePartitions(37)"));
    }
    if asks(&["delete-records"]) {
        let test = of(library, "records before an offset are deleted", delete_records);
        tests.push(test.once_served("DeleteRecords(21)"));
    }
    let test = of(library, "groups are listed, described, moved and deleted", group_life);
    tests.push(test.once_served(JOIN));
    tests
}

/// A group as one test sees it: its members' processes and names.
struct Group {
    name: String,
    topic: String,
    assignor: String,
    /// How many records were written to its topic.
    written: usize,
}

impl Group {
    /// A group with a topic of its own.
    fn new(session: &mut Session, library: Library, assignor: &str, stem: &str) -> Result<Self> {
        let topic = session.new_topic(&format!("{}-{stem}", library.name()));
        session.adapter(library).create(&topic, PARTITIONS, &[])?;
        Ok(Self {
            name: format!("{topic}-group"),
            topic,
            assignor: assignor.to_owned(),
            written: 0,
        })
    }

    /// Numbered records, evenly over the partitions; with Java, as reading is what is tested.
    fn write(&mut self, session: &mut Session, count: usize) -> Result<()> {
        let record = |number: usize| -> Result<Record> {
            let partition = i32::try_from(number)? % PARTITIONS;
            Ok(Record::new(partition, now_ms(), None, Some(number.to_string().as_bytes())))
        };
        let records: Result<Vec<Record>> =
            (self.written..self.written + count).map(record).collect();
        session.adapter(Library::Java).produce(&self.topic, &records?, Writing::default())?;
        self.written += count;
        Ok(())
    }

    fn join(&self, adapter: &mut Adapter, member: &str) -> Result<()> {
        self.join_as(adapter, member, None)
    }

    fn join_as(&self, adapter: &mut Adapter, member: &str, instance: Option<&str>) -> Result<()> {
        adapter
            .ask(json!({
                "do": "join",
                "member": self.member(member),
                "group": self.name,
                "topic": self.topic,
                "session": SESSION_MS,
                "assignor": self.assignor,
                "instance": instance,
            }))
            .map(drop)
    }

    fn leave(&self, adapter: &mut Adapter, member: &str) -> Result<()> {
        adapter.ask(json!({ "do": "leave", "member": self.member(member) })).map(drop)
    }

    /// An adapter's members have names that no other test uses.
    fn member(&self, member: &str) -> String {
        format!("{}/{member}", self.name)
    }

    fn state(&self, adapter: &mut Adapter, member: &str) -> Result<Value> {
        adapter.ask(json!({ "do": "member", "member": self.member(member) }))
    }

    fn assignment(&self, adapter: &mut Adapter, member: &str) -> Result<BTreeSet<String>> {
        object(&self.state(adapter, member)?, "assignment")
    }

    fn partitions(&self) -> BTreeSet<String> {
        (0..PARTITIONS).map(|partition| format!("{}-{partition}", self.topic)).collect()
    }

    /// The values that a member was given, with the offsets; in order within each partition.
    fn consumed(&self, adapter: &mut Adapter, member: &str) -> Result<Vec<u64>> {
        let answer = adapter.ask(json!({ "do": "consumed", "member": self.member(member) }))?;
        let records = answer.get("records").and_then(Value::as_array).context("no records")?;
        let mut numbers = Vec::new();
        for record in records {
            let (_, record) = Record::from_json(record).context("not a record")?;
            let value = record.value.context("a record without a value")?;
            numbers.push(std::str::from_utf8(&value)?.parse()?);
        }
        Ok(numbers)
    }

    /// Waits until the members, each in its adapter, share all partitions and none twice.
    fn settle(&self, session: &mut Session, members: &[(Library, &str)]) -> Result<()> {
        let mut last = Vec::new();
        let settled = eventually(LIMIT, || {
            last.clear();
            for (library, member) in members {
                last.push(self.assignment(session.adapter(*library), member)?);
            }
            let count: usize = last.iter().map(BTreeSet::len).sum();
            let all: BTreeSet<String> = last.iter().flatten().cloned().collect();
            let shared = all == self.partitions() && count == all.len();
            Ok((shared && last.iter().all(|share| !share.is_empty())).then_some(()))
        });
        settled.with_context(|| format!("{members:?} have {last:?}"))
    }

    /// Waits until the members together have every record that was written.
    fn drain(&self, session: &mut Session, members: &[(Library, &str)]) -> Result<Vec<u64>> {
        let mut seen = Vec::new();
        let drained = eventually(LIMIT, || {
            seen.clear();
            for (library, member) in members {
                seen.extend(self.consumed(session.adapter(*library), member)?);
            }
            let different: BTreeSet<u64> = seen.iter().copied().collect();
            Ok((different.len() == self.written).then_some(()))
        });
        let mut notes = || {
            let notes = members.iter().map(|(library, member)| {
                let state = self.state(session.adapter(*library), member);
                state.map(|state| part(&state, "/note").to_string()).unwrap_or_default()
            });
            notes.collect::<Vec<_>>().join(", ")
        };
        drained.with_context(|| {
            format!("{} of {} records came; last notes: {}", seen.len(), self.written, notes())
        })?;
        Ok(seen)
    }
}

fn members_come_and_go(session: &mut Session, library: Library, assignor: &str) -> Result<()> {
    let mut group = Group::new(session, library, assignor, "group")?;
    group.write(session, 120)?;
    group.join(session.adapter(library), "a")?;
    group.settle(session, &[(library, "a")])?;
    group.drain(session, &[(library, "a")]).context("alone")?;
    let names: &[&str] =
        if session.length == Length::Long { &["a", "b", "c", "d", "e"] } else { &["a", "b", "c"] };
    let all = pairs(library, names);
    for (count, (_, member)) in all.iter().enumerate().skip(1) {
        group.join(session.adapter(library), member)?;
        let members = all.iter().take(count + 1).copied().collect::<Vec<_>>();
        group.settle(session, &members).with_context(|| format!("{members:?}"))?;
    }
    group.write(session, 120)?;
    let seen = group.drain(session, &all).context("all members")?;
    ensure!(seen.len() == group.written, "{} records came for {}", seen.len(), group.written);
    group.leave(session.adapter(library), "b")?;
    let left: Vec<_> = all.iter().filter(|(_, member)| *member != "b").copied().collect();
    group.settle(session, &left).context("after b left")?;
    group.write(session, 60)?;
    group.drain(session, &all).context("after b left")?;
    for (_, member) in left {
        group.leave(session.adapter(library), member)?;
    }
    let committed = session.adapter(Library::Java).committed(&group.name, &group.topic)?;
    let each = i64::try_from(group.written)? / i64::from(PARTITIONS);
    let expected: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, each)).collect();
    ensure!(committed == expected, "the group committed {committed:?}");
    Ok(())
}

fn pairs<'a>(library: Library, members: &[&'a str]) -> Vec<(Library, &'a str)> {
    members.iter().map(|&member| (library, member)).collect()
}

fn member_killed(session: &mut Session, library: Library) -> Result<()> {
    let assignor = library.assignors().first().copied().unwrap_or_default();
    let mut group = Group::new(session, library, assignor, "killed")?;
    let directory = session.directory().join(&group.name);
    std::fs::create_dir_all(&directory)?;
    // In a process of its own, which can be killed without the others.
    let mut victim = Adapter::new(library, &session.bootstrap(), &directory);
    group.join(session.adapter(library), "stays")?;
    group.join(&mut victim, "dies")?;
    eventually(LIMIT, || {
        let stays = group.assignment(session.adapter(library), "stays")?;
        let dies = group.assignment(&mut victim, "dies")?;
        let all: BTreeSet<String> = stays.union(&dies).cloned().collect();
        let halves = !dies.is_empty() && stays.is_disjoint(&dies);
        Ok((halves && all == group.partitions()).then_some(()))
    })
    .context("they do not share the partitions")?;
    victim.kill()?;
    group.write(session, 60)?;
    let stays = [(library, "stays")];
    group.settle(session, &stays)?;
    group.drain(session, &stays)?;
    group.leave(session.adapter(library), "stays")
}

fn resume(session: &mut Session, library: Library) -> Result<()> {
    let assignor = library.assignors().first().copied().unwrap_or_default();
    let mut group = Group::new(session, library, assignor, "resume")?;
    group.write(session, 60)?;
    group.join(session.adapter(library), "first")?;
    group.drain(session, &[(library, "first")])?;
    group.leave(session.adapter(library), "first")?;
    group.write(session, 60)?;
    group.join(session.adapter(library), "second")?;
    let both = pairs(library, &["first", "second"]);
    let seen = group.drain(session, &both)?;
    ensure!(seen.len() == group.written, "{} records came for {}", seen.len(), group.written);
    let second = group.consumed(session.adapter(library), "second")?;
    ensure!(second.iter().all(|number| *number >= 60), "it began before what was committed");
    group.leave(session.adapter(library), "second")
}

/// A static member that leaves without a word is expected back until its session ends.
fn static_member(session: &mut Session, library: Library) -> Result<()> {
    let mut group = Group::new(session, library, "range", "static")?;
    let directory = session.directory().join(&group.name);
    std::fs::create_dir_all(&directory)?;
    let mut first = Adapter::new(library, &session.bootstrap(), &directory.join("first"));
    let mut again = Adapter::new(library, &session.bootstrap(), &directory.join("again"));
    for part in ["first", "again"] {
        std::fs::create_dir_all(directory.join(part))?;
    }
    group.join_as(session.adapter(library), "stays", Some("one"))?;
    group.join_as(&mut first, "goes", Some("two"))?;
    let (mut stays, mut goes) = (BTreeSet::new(), BTreeSet::new());
    eventually(LIMIT, || {
        stays = group.assignment(session.adapter(library), "stays")?;
        goes = group.assignment(&mut first, "goes")?;
        let all: BTreeSet<String> = stays.union(&goes).cloned().collect();
        let halves = !goes.is_empty() && stays.is_disjoint(&goes);
        Ok((halves && all == group.partitions()).then_some(()))
    })
    .context("they do not share the partitions")?;
    first.kill()?;
    group.join_as(&mut again, "comes", Some("two"))?;
    eventually(LIMIT, || {
        let comes = group.assignment(&mut again, "comes")?;
        Ok((comes == goes).then_some(()))
    })
    .context("it does not get its partitions back")?;
    let kept = group.assignment(session.adapter(library), "stays")?;
    ensure!(kept == stays, "the other member had {stays:?}, now {kept:?}");
    group.write(session, 60)?;
    let mut seen = BTreeSet::new();
    eventually(LIMIT, || {
        seen.extend(group.consumed(session.adapter(library), "stays")?);
        seen.extend(group.consumed(&mut again, "comes")?);
        Ok((seen.len() == group.written).then_some(()))
    })
    .with_context(|| format!("{} of {} records came", seen.len(), group.written))?;
    group.leave(session.adapter(library), "stays")
}

fn shared_group(session: &mut Session, libraries: &[Library]) -> Result<()> {
    let mut group = Group::new(session, Library::Java, "range", "shared")?;
    let mut joined: Vec<(Library, &str)> = Vec::new();
    // No more members than partitions, so that each has something to do.
    let able = libraries.iter().filter(|library| library.assignors().contains(&"range"));
    for &library in able.take(usize::try_from(PARTITIONS)?) {
        if super::missing_program(library.needs()).is_none() {
            group.join(session.adapter(library), library.name())?;
            joined.push((library, library.name()));
        }
    }
    group.settle(session, &joined)?;
    group.write(session, 240)?;
    let seen = group.drain(session, &joined)?;
    ensure!(seen.len() == group.written, "{} records came for {}", seen.len(), group.written);
    for (library, member) in joined {
        group.leave(session.adapter(library), member)?;
    }
    Ok(())
}

fn broker_killed(session: &mut Session, libraries: &[Library]) -> Result<()> {
    let mut groups = Vec::new();
    for &library in libraries {
        if super::missing_program(library.needs()).is_none() {
            let assignor = library.assignors().first().copied().unwrap_or_default();
            let mut group = Group::new(session, library, assignor, "broker-killed")?;
            group.write(session, 60)?;
            for member in ["a", "b"] {
                group.join(session.adapter(library), member)?;
            }
            groups.push((library, group));
        }
    }
    for (library, group) in &groups {
        let both = pairs(*library, &["a", "b"]);
        group.settle(session, &both).and_then(|()| group.drain(session, &both).map(drop))?;
    }
    session.broker.kill9()?;
    session.broker.restart()?;
    for (library, group) in &mut groups {
        group.write(session, 60)?;
        let drained = group.drain(session, &pairs(*library, &["a", "b"]));
        drained.with_context(|| format!("{} after the broker's return", library.name()))?;
    }
    for (library, group) in &groups {
        for member in ["a", "b"] {
            group.leave(session.adapter(*library), member)?;
        }
        let committed = session.adapter(Library::Java).committed(&group.name, &group.topic)?;
        let expected: BTreeMap<i32, i64> =
            (0..PARTITIONS).map(|partition| (partition, 20)).collect();
        ensure!(committed == expected, "{} committed {committed:?}", group.name);
    }
    Ok(())
}

fn configs(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-configs", library.name()));
    let client = session.adapter(library);
    client.create(&topic, 1, &[("retention.ms", "123456")])?;
    let value = |client: &mut Adapter, name: &str| -> Result<Option<String>> {
        Ok(client.configs(&topic)?.remove(name).flatten())
    };
    ensure!(value(client, "retention.ms")?.as_deref() == Some("123456"), "as it was created");
    // All in one: some libraries know only the call that replaces everything.
    let wanted = json!({ "retention.ms": "654321", "cleanup.policy": "compact" });
    client.ask(json!({ "do": "set-configs", "topic": topic, "configs": wanted }))?;
    eventually(LIMIT, || {
        let both = (value(client, "retention.ms")?, value(client, "cleanup.policy")?);
        Ok((both == (Some("654321".to_owned()), Some("compact".to_owned()))).then_some(()))
    })
    .context("as it was changed")?;
    let wrong = json!({ "retention.ms": "a while" });
    let refused = client.ask(json!({ "do": "set-configs", "topic": topic, "configs": wrong }));
    let told = !library.tells_of_refused_configs() || refused.is_err();
    ensure!(told, "a retention of \"a while\" was accepted");
    Ok(())
}

fn more_partitions(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-more", library.name()));
    let client = session.adapter(library);
    client.create(&topic, 2, &[])?;
    let more = |count: i32| json!({ "do": "add-partitions", "topic": topic, "partitions": count });
    client.ask(more(5))?;
    eventually(LIMIT, || {
        let now = client.ask(json!({ "do": "partitions", "topic": topic }))?;
        Ok((number(&now, "partitions")? == 5).then_some(()))
    })
    .context("there are not five of them")?;
    ensure!(client.ask(more(3)).is_err(), "five partitions became three");
    let records = [Record::new(4, now_ms(), None, Some(b"in the last of them"))];
    session.write(library, &topic, &records, Writing::default()).map(drop)
}

fn delete_records(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-delete-records", library.name()));
    session.adapter(library).create(&topic, 1, &[])?;
    let records = vec![Record::new(0, now_ms(), None, Some(b"one")); 10];
    session.adapter(library).produce(&topic, &records, Writing::default())?;
    let client = session.adapter(library);
    let before = |offset: i64| json!({ "do": "delete-records", "topic": topic, "partition": 0, "before": offset });
    let answer = client.ask(before(4))?;
    ensure!(number(&answer, "low")? == 4, "it answers {answer}");
    ensure!(client.watermarks(&topic, 0)? == (4, 10), "the watermarks are not 4 and 10");
    ensure!(client.ask(before(11)).is_err(), "records that are not there were deleted");
    Ok(())
}

fn group_life(session: &mut Session, library: Library) -> Result<()> {
    let assignor = library.assignors().first().copied().unwrap_or_default();
    let mut group = Group::new(session, library, assignor, "life")?;
    group.write(session, 60)?;
    group.join(session.adapter(library), "member")?;
    let member = [(library, "member")];
    group.settle(session, &member)?;
    group.drain(session, &member)?;
    let client = session.adapter(library);
    let name = &group.name;
    ensure!(client.groups()?.contains(name), "it is not listed");
    let describe = json!({ "do": "describe-group", "group": name });
    let described = client.ask(describe.clone())?;
    let members: Vec<BTreeSet<String>> = object(&described, "members")?;
    ensure!(*part(&described, "/state") == "Stable", "its state: {described}");
    ensure!(members == [group.partitions()], "its members: {described}");
    group.leave(client, "member")?;
    let described = client.ask(describe)?;
    ensure!(*part(&described, "/state") == "Empty", "its state without members: {described}");
    let all = |offset: i64| (0..PARTITIONS).map(|partition| (partition, offset)).collect();
    let committed: BTreeMap<i32, i64> = client.committed(name, &group.topic)?;
    ensure!(committed == all(10), "it committed {committed:?}");
    let offsets = json!({ "0": 3, "5": 7 });
    client
        .ask(json!({ "do": "commit", "group": name, "topic": group.topic, "offsets": offsets }))?;
    let mut moved = all(10);
    moved.extend([(0, 3), (5, 7)]);
    let committed = client.committed(name, &group.topic)?;
    ensure!(committed == moved, "moved, it committed {committed:?}");
    if !library.lacks("delete-group") {
        client.ask(json!({ "do": "delete-group", "group": name }))?;
        ensure!(!client.groups()?.contains(name), "it is listed after its deletion");
    }
    Ok(())
}
