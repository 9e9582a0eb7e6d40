//! Where the quorum does what may block: threads, or, in a simulation, whatever has none. Shell.

use std::fmt::Debug;
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// Something to be done once.
pub type Work = Box<dyn FnOnce() + Send>;

/// Does what may block.
pub trait Workers: Debug + Send + Sync + 'static {
    /// Does it beside everything else.
    fn start(&self, work: Work);

    /// Somebody who does one thing after the other, in the order that they are given.
    ///
    /// # Errors
    /// When the system gives no thread.
    fn in_order(&self, name: &str) -> io::Result<Box<dyn InOrder>>;
}

/// Does one thing after the other. Dropped, it has done all that it was given, if it can be waited for.
pub trait InOrder: Send {
    /// Gives the work back if nobody does anything here any more.
    ///
    /// # Errors
    /// The work itself.
    fn give(&self, work: Work) -> Result<(), Work>;
}

/// Has it done by somebody, and tells the result; an error if there never will be one.
pub(crate) fn aside<T: Send + 'static>(
    workers: &dyn Workers,
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (sender, done) = oneshot::channel();
    // Whoever asked may have gone away.
    workers.start(Box::new(move || drop(sender.send(work()))));
    done
}

/// tokio's threads, and one thread of its own for each order.
#[derive(Debug, Clone, Copy)]
pub struct Threads;

impl Workers for Threads {
    fn start(&self, work: Work) {
        // What came of it is told by the work itself.
        drop(tokio::task::spawn_blocking(work));
    }

    fn in_order(&self, name: &str) -> io::Result<Box<dyn InOrder>> {
        let (sender, receiver) = mpsc::channel::<Work>();
        let work = move || receiver.iter().for_each(|work| work());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Box::new(Thread { work: Some(sender), thread: Some(thread) }))
    }
}

/// A thread that works until it is dropped.
struct Thread {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl InOrder for Thread {
    fn give(&self, work: Work) -> Result<(), Work> {
        match &self.work {
            Some(sender) => sender.send(work).map_err(|mpsc::SendError(work)| work),
            None => Err(work),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.work.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the quorum panicked");
        }
    }
}
