//! What a file of a recording was, and what came of it.

use std::{collections::BTreeMap, fmt};

use super::stream::{Protocol, Stream};
use crate::bgp::{pcap, update::Update, wire::Refused};

/// The most different reasons for refusals that are told; more are counted together.
const REASONS_MAX: usize = 64;

/// What a file was, and what came of it.
#[derive(Debug, Default)]
pub struct Account {
    /// What it was taken for.
    pub format: &'static str,
    /// Packets, of a capture.
    pub packets: Option<pcap::Packets>,
    /// Streams of BMP that were followed to their end.
    pub bmp_streams: u64,
    /// Streams of BGP that were followed to their end.
    pub bgp_streams: u64,
    /// Streams that could not be followed to their end, and why.
    pub lost: Vec<String>,
    /// Streams of something else.
    pub other_streams: u64,
    /// Messages that were understood, by what they were.
    pub understood: BTreeMap<String, u64>,
    /// Prefixes announced.
    pub announced: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// Announcements that malformed attributes made withdrawals of.
    pub malformed: u64,
    /// What was not understood, by the reason.
    pub refused: BTreeMap<String, u64>,
    /// What was understood but odd, by what is odd.
    pub odd: BTreeMap<String, u64>,
}

impl Account {
    pub(super) fn understand(&mut self, kind: &str) {
        match self.understood.get_mut(kind) {
            Some(count) => *count += 1,
            None => _ = self.understood.insert(kind.to_owned(), 1),
        }
    }

    pub(super) fn refuse(&mut self, refused: &Refused) {
        count(&mut self.refused, &refused.to_string());
    }

    pub(super) fn events(&mut self, update: &Update) {
        self.announced += update.announced.len() as u64;
        self.withdrawn += update.withdrawn.len() as u64;
        if let Some(why) = &update.malformed {
            self.malformed += 1;
            count(
                &mut self.odd,
                &format!("announcement that counts as a withdrawal: {why}"),
            );
        }
    }
}

pub(super) fn count(reasons: &mut BTreeMap<String, u64>, reason: &str) {
    let reason: String = reason
        .chars()
        .filter(|char| !char.is_control())
        .take(160)
        .collect();
    let is_room = reasons.len() < REASONS_MAX || reasons.contains_key(&reason);
    let reason = if is_room {
        reason
    } else {
        "other reasons".to_owned()
    };
    *reasons.entry(reason).or_default() += 1;
}

/// In words, for people.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  format      {}", self.format)?;
        if let Some(packets) = self.packets {
            writeln!(
                f,
                "  packets     {} of which {} TCP",
                packets.all, packets.tcp
            )?;
            writeln!(
                f,
                "  streams     {} BMP, {} BGP, {} of something else, {} lost",
                self.bmp_streams,
                self.bgp_streams,
                self.other_streams,
                self.lost.len()
            )?;
        }
        let understood: Vec<String> = self
            .understood
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        writeln!(
            f,
            "  understood  {}",
            if understood.is_empty() {
                "nothing".to_owned()
            } else {
                understood.join(", ")
            }
        )?;
        writeln!(
            f,
            "  prefixes    {} announced, {} withdrawn",
            self.announced, self.withdrawn
        )?;
        for lost in &self.lost {
            writeln!(f, "  lost        {lost}")?;
        }
        for (reason, count) in &self.refused {
            writeln!(f, "  refused     {count} x {reason}")?;
        }
        for (what, count) in &self.odd {
            writeln!(f, "  odd         {count} x {what}")?;
        }
        Ok(())
    }
}

impl Account {
    pub(super) fn follow(&mut self, stream: Option<Stream>) {
        match stream.map(|stream| stream.protocol) {
            Some(Protocol::Bmp(..)) => self.bmp_streams += 1,
            Some(Protocol::Bgp(_)) => self.bgp_streams += 1,
            Some(Protocol::Other) => self.other_streams += 1,
            Some(Protocol::Lost(why)) => self.lost.push(why),
            Some(Protocol::Unknown) | None => {}
        }
    }
}
