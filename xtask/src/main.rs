//! The project's own commands: `cargo xtask help`.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

mod broker;
mod interop;
mod kafka;
mod ottla;
mod process;
mod workspace;

use anyhow::Result;
use broker::Target;

fn main() -> Result<()> {
    let directory = workspace::run_directory("try")?;
    let mut broker = Target::Kafka.start(&directory, &[])?;
    println!(
        "{} {:?} {:?} {}",
        broker.address(),
        broker.ready_after(),
        broker.pid(),
        broker.target()
    );
    broker.kill9()?;
    broker.restart()?;
    println!(
        "{} {:?} {}",
        broker.address(),
        broker.ready_after(),
        broker.data_directory().display()
    );
    broker.stop()?;
    Ok(())
}
