//! The command line as a whole: what parses to what, and that every help text is complete.

use clap::{CommandFactory as _, Parser};

use super::*;

#[derive(Debug, Parser)]
#[command(name = "ottla")]
struct Ottla {
    #[command(subcommand)]
    command: ClientCommand,
}

fn parse(line: &str) -> Result<ClientCommand, String> {
    let words = std::iter::once("ottla").chain(line.split_whitespace());
    Ottla::try_parse_from(words).map(|ottla| ottla.command).map_err(|error| error.to_string())
}

#[test]
fn the_definitions_are_sound() {
    Ottla::command().debug_assert();
}

#[test]
fn connection_options_may_stand_before_and_after_the_verb() {
    for line in ["topic --bootstrap a:1,b list", "topic list --bootstrap-server a:1,b -o json"] {
        let Ok(ClientCommand::Topic(arguments)) = parse(line) else { panic!("{line}") };
        assert_eq!(arguments.connection.bootstrap, ["a:1", "b"], "{line}");
    }
}

#[test]
fn consuming_begins_at_the_beginning_unless_told() {
    let from = |line: &str| match parse(line) {
        Ok(ClientCommand::Consume(arguments)) => arguments.from,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(from("consume t"), Start::Beginning);
    assert_eq!(from("consume t --from end"), Start::End);
    assert_eq!(from("consume t --from -10"), Start::Last(10));
    assert_eq!(from("consume t -f 7 --count 1"), Start::Offset(7));
}

#[test]
fn create_takes_every_option_of_a_topic() {
    let line = "topic create t --partitions 3 --replication-factor 2 --config a=b --config c=d";
    let Ok(ClientCommand::Topic(TopicArguments { command: TopicCommand::Create(create), .. })) =
        parse(line)
    else {
        panic!("{line}")
    };
    assert_eq!((create.partitions, create.replication_factor), (Some(3), Some(2)));
    assert_eq!(create.configs.len(), 2);
}

#[test]
fn produce_takes_every_option_of_a_record() {
    let line = "produce t --key-separator : --header a=b --partition 1 --acks 1 --compression zstd";
    let Ok(ClientCommand::Produce(produce)) = parse(line) else { panic!("{line}") };
    assert_eq!(produce.acks, AcksArgument::Leader);
    assert_eq!(produce.compression, CompressionArgument::Zstd);
    assert_eq!(produce.partition, Some(1));
}

#[test]
fn a_reset_says_of_what_and_to_where() {
    let lines = [
        "--topic a --topic b:0,1 --to-earliest",
        "--all-topics --shift-by -3 --execute",
        "--topic a --to-current --export --dry-run",
        "--topic a --to-datetime 2026-05-01T08:00:00.000",
        "--all-topics --by-duration PT1H",
        "--from-file plan.csv --execute",
    ];
    for line in lines {
        let parsed = parse(&format!("group reset-offsets g {line}"));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn dump_takes_several_paths() {
    let line = "log dump a-0 b-1/00000000000000000000.log --records -o json";
    let Ok(ClientCommand::Log(LogArguments { output, command: LogCommand::Dump(dump) })) =
        parse(line)
    else {
        panic!("{line}")
    };
    assert_eq!((output, dump.paths.len(), dump.records), (OutputFormat::Json, 2, true));
}

#[test]
fn states_are_written_in_any_case() {
    let line = "group list --state empty,STABLE --type Classic -o json";
    assert!(parse(line).is_ok(), "{line}");
}

#[test]
fn mistakes_say_what_is_right() {
    let mistakes = [
        ("consume t --from tomorrow", "yesterday"),
        ("consume t --format %x", "%k key"),
        ("consume t --json --format %v", "cannot be used with"),
        ("produce t --acks 2", "possible values: 0, 1, all"),
        ("produce t --header x", "NAME=VALUE"),
        ("produce t --compression brotli", "zstd"),
        ("topic create t --config x", "KEY=VALUE"),
        ("topic create t --partitions 0", "1.."),
        ("topic list --timeout never", "10s"),
        ("topic delete-records t --before soon", "an offset, or end"),
        ("config set orders a=b", "topic/NAME"),
        ("config set topic/orders a", "KEY=VALUE"),
        ("consume t --group g --partition 0", "cannot be used with"),
        ("consume t --group=", "a value is required"),
        ("consume t --session-timeout 10s", "--group"),
        ("group list --state ready", "PreparingRebalance"),
        ("group list --type old", "classic"),
        ("group describe", "<GROUP>"),
        ("group describe g --all-groups", "cannot be used with"),
        ("group reset-offsets g --topic t", "--to-earliest"),
        ("group reset-offsets g --to-latest", "--all-topics"),
        ("group reset-offsets g --topic t --to-latest --to-earliest", "cannot be used with"),
        ("group reset-offsets g --topic t --from-file f", "cannot be used with"),
        ("group reset-offsets g --topic t --all-topics --to-latest", "cannot be used with"),
        ("group reset-offsets g --topic t --to-latest --dry-run --execute", "cannot be used with"),
        ("group reset-offsets g --topic t:x --to-latest", "orders:0,3"),
        ("group reset-offsets g --topic t --to-datetime noon", "2026-05-01T08:00:00"),
        ("group reset-offsets g --topic t --by-duration long", "2h30m"),
        ("group reset-offsets g --topic t --to-offset -1", "0.."),
        ("group delete-offsets g", "--topic"),
        ("log dump", "<PATH>..."),
    ];
    for (line, right) in mistakes {
        let error = parse(line).unwrap_err();
        assert!(error.contains(right), "{line}: {error}");
    }
}

#[test]
fn every_command_that_can_fail_at_a_cluster_explains_its_exit_codes() {
    for name in ["topic", "config", "produce", "consume", "group", "cluster"] {
        let mut root = Ottla::command();
        let help = root.find_subcommand_mut(name).unwrap().render_long_help().to_string();
        assert!(help.contains("Exit codes:"), "{name}");
    }
}

#[test]
fn completions_know_the_commands() {
    let mut script = Vec::new();
    clap_complete::generate(Shell::Bash, &mut Ottla::command(), "ottla", &mut script);
    let script = String::from_utf8(script).unwrap();
    assert!(script.contains("produce") && script.contains("--key-separator"));
}
