//! Child processes that are bounded in time and never outlive us (shell).
//!
//! Every child leads its own process group, which is killed when its guard is dropped. Should we
//! be killed ourselves, Linux kills the child: the signal is tied to the *thread* that started it,
//! so a thread that starts a child must live as long as the child is needed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running program whose standard output is read line by line; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    started: Instant,
    input: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; standard output and standard error are also written to `log`.
    pub(crate) fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("cannot share the log file")?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let started = Instant::now();
        let mut child = spawn_bound_to_us(&mut command)?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("standard output was piped")?;
        let (sender, lines) = channel();
        thread::spawn(move || copy_lines(output, file, &sender));
        Ok(Self { name: name.to_owned(), child, started, input, lines, log: log.to_path_buf() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The first line for which `found` gives a value, with the time since the start.
    pub(crate) fn wait_for_line<T>(
        &mut self,
        limit: Duration,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<(T, Duration)> {
        let deadline = Instant::now() + limit;
        loop {
            let (at, line) = self.next_line(deadline)?;
            if let Some(value) = found(&line) {
                return Ok((value, at - self.started));
            }
        }
    }

    /// The next line of standard output.
    pub(crate) fn next_line(&mut self, deadline: Instant) -> Result<(Instant, String)> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => self.failure("did not answer in time"),
            RecvTimeoutError::Disconnected => self.failure("closed its output"),
        })
    }

    /// The next line of standard output, or `None` if none has come within `limit`.
    pub(crate) fn line_within(&mut self, limit: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(limit) {
            Ok((_, line)) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.failure("closed its output")),
        }
    }

    /// Writes one line to standard input.
    pub(crate) fn write_line(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("standard input is closed")?;
        let written = input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n"));
        written.and_then(|()| input.flush()).map_err(|_| self.failure("closed its input"))
    }

    /// Asks to end (SIGTERM) and waits; killed when it takes longer than `limit`.
    pub(crate) fn stop(self, limit: Duration) -> Result<ExitStatus> {
        self.send(Signal::TERM);
        self.wait(limit)
    }

    pub(crate) fn send(&self, which: Signal) {
        signal(&self.child, which);
    }

    /// Waits for the end; killed when it takes longer than `limit`.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<ExitStatus> {
        self.input = None;
        match wait(&mut self.child, Instant::now() + limit)? {
            Some(status) => Ok(status),
            None => Err(self.failure("did not end in time")),
        }
    }

    /// Ends it as a power switch would (SIGKILL), and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        signal(&self.child, Signal::KILL);
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    fn failure(&mut self, what: &str) -> anyhow::Error {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!(" (it ended: {status})"),
            Ok(None) | Err(_) => String::new(),
        };
        anyhow!("{} {what}{state}; its output ends:\n{}", self.name, tail(&self.log, 30))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// What a program that ran to its end left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Finished {
    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Runs `command` to its end with `input` on standard input; an error if that takes too long.
pub(crate) fn run(mut command: Command, input: &[u8], limit: Duration) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut guard = Guard(spawn_bound_to_us(&mut command)?);
    let child = &mut guard.0;
    let mut to_child = child.stdin.take().context("standard input was piped")?;
    let input = input.to_vec();
    // A program that ends without reading its input is judged by its status, not by our pipe.
    thread::spawn(move || to_child.write_all(&input).ok());
    let stdout = read_to_end(child.stdout.take().context("standard output was piped")?);
    let stderr = read_to_end(child.stderr.take().context("standard error was piped")?);
    let deadline = Instant::now() + limit;
    let Some(status) = wait(child, deadline)? else {
        end(child);
        let said = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        bail!("{name} took longer than {limit:?}: {}", String::from_utf8_lossy(&said));
    };
    Ok(Finished {
        status,
        stdout: stdout.recv_timeout(limit).context("standard output never closed")?,
        stderr: stderr.recv_timeout(limit).context("standard error never closed")?,
    })
}

/// Like [`run`], but a status other than success is an error that quotes what the program said.
pub(crate) fn run_ok(command: Command, input: &[u8], limit: Duration) -> Result<Finished> {
    let shown = shown(&command);
    let finished = run(command, input, limit)?;
    if !finished.status.success() {
        let (out, err) = (finished.stdout_text(), finished.stderr_text());
        bail!("{shown}: {}\n{}\n{}", finished.status, out.trim_end(), err.trim_end());
    }
    Ok(finished)
}

/// Runs `command` on our own standard error, showing each line of its standard output to `see`.
pub(crate) fn run_showing(
    mut command: Command,
    limit: Duration,
    mut see: impl FnMut(&str),
) -> Result<ExitStatus> {
    let name = shown(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut guard = Guard(spawn_bound_to_us(&mut command)?);
    let child = &mut guard.0;
    let output = child.stdout.take().context("standard output was piped")?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => see(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("{name} took longer than {limit:?}"),
        }
    }
    wait(child, deadline)?.with_context(|| format!("{name} took longer than {limit:?}"))
}

/// The command line, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for argument in command.get_args().take(12) {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// The last lines of a file.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// Kills what is still running when an error leaves the scope.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn spawn_bound_to_us(command: &mut Command) -> Result<Child> {
    command.process_group(0);
    die_with_parent(command);
    command.spawn().with_context(|| format!("cannot start {}", shown(command)))
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "std offers no other way to run code between fork and exec")]
fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are
    // allowed: it makes one system call (prctl) and touches neither heap nor locks.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(std::io::Error::from)
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

fn copy_lines(from: impl Read, mut log: File, lines: &Sender<(Instant, String)>) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let at = Instant::now();
        // Adapters answer with megabytes of JSON: the log keeps what a person can read.
        let kept = line.get(..line.len().min(2000)).unwrap_or_default();
        // A full disk must not stop the child, whose pipe we are emptying.
        log.write_all(kept).and_then(|()| log.write_all(b"\n")).ok();
        lines.send((at, String::from_utf8_lossy(&line).into_owned())).ok();
    }
}

fn read_to_end(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).ok();
        sender.send(bytes).ok();
    });
    receiver
}

/// Waits for the end until `deadline`; `None` when it is still running then.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Kills the whole group, so that what the child started goes too.
fn end(child: &mut Child) {
    signal_group(child, Signal::KILL);
    child.wait().ok();
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// A child that was waited for has given its number back: never signal that number again.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = pid_of(child) {
        rustix::process::kill_process(pid, signal).ok();
    }
}

fn signal_group(child: &mut Child, signal: Signal) {
    let running = matches!(child.try_wait(), Ok(None));
    if let Some(pid) = pid_of(child).filter(|_| running) {
        rustix::process::kill_process_group(pid, signal).ok();
    }
}

/// How a status reads in a message: Kafka's tools end with a number, a kill with a signal.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
