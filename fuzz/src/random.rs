//! Random numbers for the runs of the fuzzers on a stable compiler; under libFuzzer nobody needs any.
//!
//! A seed's numbers stay the same as long as nobody changes what is drawn, so that a seed that a test has named stands for the
//! same bytes. `OTTLA_FUZZ_SECONDS` says how long a run goes on, instead of to its ordinary end, and `OTTLA_FUZZ_FIRST`
//! with which seed it begins.

#![allow(dead_code, reason = "each test uses a part of this")]

use std::time::{Duration, Instant};

use ottla_base::SplitMix64;

pub(crate) fn byte(random: &mut SplitMix64) -> u8 {
    const TELLING: [u8; 8] = [0, 1, 2, 0x7e, 0x7f, 0x80, 0xfe, 0xff];
    match random.below(3) {
        0 => TELLING[random.below(TELLING.len())],
        _ => random.draw().to_le_bytes()[0],
    }
}

/// Changes a file in a few places, or nowhere.
pub(crate) fn mutate(file: &mut Vec<u8>, random: &mut SplitMix64) {
    for _ in 0..random.below(4) {
        if file.is_empty() {
            file.push(byte(random));
        }
        let at = random.below(file.len());
        match random.below(8) {
            0 => file.insert(at, byte(random)),
            1 => drop(file.remove(at)),
            2 => file.truncate(at),
            3 => file.extend_from_within(..at),
            4 => change_number(file, at, random),
            _ => file[at] = byte(random),
        }
    }
}

/// Puts another number in the place of the first one behind a position, of those that are written in digits.
fn change_number(file: &mut Vec<u8>, from: usize, random: &mut SplitMix64) {
    const TELLING: [&str; 12] = [
        "-1",
        "0",
        "1",
        "3",
        "7",
        "90",
        "500",
        "2147483647",
        "2147483648",
        "9223372036854775807",
        "-9223372036854775808",
        "99999999999999999999",
    ];
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let behind = |from: usize| file.get(from..).unwrap_or_default().iter();
    let Some(start) = behind(from).position(is_digit).map(|at| from + at) else { return };
    let len = behind(start).take_while(|byte| is_digit(byte)).count();
    let number = TELLING[random.below(TELLING.len())];
    file.splice(start..start + len, number.bytes());
}

/// The seeds of a run.
#[derive(Debug)]
pub(crate) struct Seeds {
    next: u64,
    end: u64,
    until: Option<Instant>,
}

/// So many from 0 on, unless the environment asks for others.
pub(crate) fn seeds(ordinary: u64) -> Seeds {
    let number = |variable| std::env::var(variable).ok()?.parse::<u64>().ok();
    let first = number("OTTLA_FUZZ_FIRST").unwrap_or(0);
    let until = number("OTTLA_FUZZ_SECONDS").map(|it| Instant::now() + Duration::from_secs(it));
    let end = if until.is_some() { u64::MAX } else { first + ordinary };
    Seeds { next: first, end, until }
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.next == self.end || self.until.is_some_and(|until| until <= Instant::now()) {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }
}
