//! Whose an address is, asked by other threads of the one that knows the tables.

use std::{net::IpAddr, time::Duration};

use tokio::sync::mpsc;

use super::observer::Observer;

/// Questions that wait. More are not asked.
const WAITING_MAX: usize = 4;

/// How long an answer is waited for: while the uplink takes nothing, that thread stands still.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Question {
    addresses: Vec<IpAddr>,
    answer: std::sync::mpsc::SyncSender<Vec<Option<u32>>>,
}

/// Where it can be asked.
#[derive(Clone, Debug)]
pub struct Systems(mpsc::Sender<Question>);

/// Where questions come in.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

/// A way for questions. Without somebody who answers nothing is known.
#[must_use]
pub fn channel() -> (Systems, Questions) {
    let (ask, asked) = mpsc::channel(WAITING_MAX);
    (Systems(ask), Questions(asked))
}

impl Systems {
    /// The system of each address, by the longest prefix that feeds which can be believed show; `None` where none holds it, or if
    /// nobody answers in time. Waits for the answer.
    #[must_use]
    pub fn of(&self, addresses: Vec<IpAddr>) -> Vec<Option<u32>> {
        let nothing = vec![None; addresses.len()];
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let question = Question { addresses, answer };
        match self.0.try_send(question) {
            Ok(()) => answered.recv_timeout(ANSWERED_WITHIN).unwrap_or(nothing),
            Err(_) => nothing,
        }
    }
}

impl Questions {
    /// Waits for a question and answers it. Never returns once nobody can ask any more.
    pub(crate) async fn next(&mut self) -> Asked {
        match self.0.recv().await {
            Some(question) => Asked(question),
            None => std::future::pending().await,
        }
    }
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked(Question);

impl Asked {
    pub(crate) fn answer(self, observer: &Observer) {
        let Question { addresses, answer } = self.0;
        let systems = addresses.into_iter();
        let systems = systems.map(|address| observer.system_of(address));
        // Who asked may have given up.
        _ = answer.try_send(systems.collect());
    }
}
