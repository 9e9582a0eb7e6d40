//! The least that a broker can do: two tiny programs whose CPU time is the floor of the table
//! (shell).
//!
//! Each runs in a process of its own, prints its address, serves its connections (one, unless it is told otherwise) and
//! ends.

#![expect(clippy::print_stdout, reason = "the address is told on standard output")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use ottla_records::crc32c;

use super::driver::in_threads;
use super::wire::{PARTITION_MAX_BYTES, produced_answer};

const BUFFER_LEN: usize = 1 << 18;

/// Which floor to be.
#[derive(Debug, Subcommand)]
pub(crate) enum Floor {
    /// Receives produce requests, computes CRC-32C, appends to a file, answers.
    Receive {
        file: PathBuf,
        /// Flush to disk before every answer, once for all requests that have arrived.
        #[arg(long)]
        flush: bool,
    },
    /// Answers each request with the next mebibyte of a file, by sendfile.
    Send {
        file: PathBuf,
        /// Serve so many connections, each from a thread of its own.
        #[arg(long, default_value_t = 1)]
        connections: usize,
    },
}

pub(crate) fn run(floor: &Floor) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    println!("listening on {}", listener.local_addr().context("a bound listener has an address")?);
    match floor {
        Floor::Receive { file, flush } => receive(next_of(&listener)?, file, *flush),
        Floor::Send { file, connections } => {
            in_threads(*connections, |_| send(next_of(&listener)?, file)).map(drop)
        }
    }
}

fn next_of(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _) = listener.accept().context("nobody connected")?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    // As little as can be done: no timers between packets on loopback, where the system would have them (BBR).
    rustix::net::sockopt::set_tcp_congestion(&stream, "reno").context("cannot choose Reno")?;
    Ok(stream)
}

fn receive(mut stream: TcpStream, path: &Path, flush: bool) -> Result<()> {
    let mut file = File::create(path).context("cannot create the floor's file")?;
    let mut buffer = vec![0; BUFFER_LEN];
    let (mut filled, mut answers) = (0, Vec::new());
    loop {
        let free = buffer.get_mut(filled..).unwrap_or_default();
        let read = stream.read(free).context("cannot read")?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        while let Some((request, after)) = first_request(rest) {
            std::hint::black_box(crc32c(request));
            file.write_all(request).context("cannot append")?;
            answers.extend_from_slice(&answer_to(request));
            rest = after;
        }
        if !answers.is_empty() {
            if flush {
                file.sync_data().context("cannot flush")?;
            }
            stream.write_all(&answers).context("cannot answer")?;
            answers.clear();
        }
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
        if filled == buffer.len() {
            bail!("a request is larger than the floor's buffer");
        }
    }
}

fn first_request(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?);
    let (request, after) = bytes.split_at_checked(usize::try_from(length).ok()?.checked_add(4)?)?;
    Some((request.get(4..)?, after))
}

fn answer_to(request: &[u8]) -> [u8; 63] {
    let correlation = request.get(4..).and_then(<[u8]>::first_chunk).copied();
    produced_answer(correlation.unwrap_or_default())
}

fn send(mut stream: TcpStream, path: &Path) -> Result<()> {
    let file = File::open(path).context("cannot open the floor's file")?;
    let file_len = file.metadata().context("cannot measure the floor's file")?.len();
    let answer_len = u64::from(PARTITION_MAX_BYTES.unsigned_abs());
    let mut request = vec![0; 4096];
    let mut position = 0;
    loop {
        if stream.read(&mut request).context("cannot read")? == 0 {
            return Ok(());
        }
        let mut left = answer_len.min(file_len - position);
        let length = u32::try_from(left).context("an answer of at most a mebibyte")?;
        stream.write_all(&length.to_be_bytes()).context("cannot answer")?;
        while left > 0 {
            let wanted = usize::try_from(left).context("an answer of at most a mebibyte")?;
            let sent = rustix::fs::sendfile(&stream, &file, Some(&mut position), wanted)
                .context("cannot send the file")?;
            if sent == 0 {
                bail!("the file shrank");
            }
            left -= u64::try_from(sent).context("sendfile sends a length")?;
        }
        if position == file_len {
            position = 0;
        }
    }
}
