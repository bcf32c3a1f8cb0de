//! Windows of ten seconds out of windows of one: what is told when there is no room for more. [pure]
//!
//! Nothing is made up and nothing is rounded: counts and what is known of directions are summed up, histograms are added
//! bucket by bucket, extremes and sums stay exact. What is lost is when within the ten seconds it happened.
//!
//! Only what no aggregator may have got under its own sequence is merged, or what the same aggregators are known to have:
//! so nobody counts anything twice.

use std::{collections::BTreeMap, time::Duration};

use leeward_common::{
    report::{Report, Window},
    time::Timestamp,
    wire::{
        batch::{self, Batch},
        frame::{self, HEADER_BYTES},
    },
};

use super::record::{Key, Message};

/// How long merged windows are. It divides a minute.
pub const LENGTH: Duration = Duration::from_secs(10);

/// The long window that a message lies in; `None` if it tells of something else than windows, or lies in none.
#[must_use]
pub fn slot(frame_type: Option<u8>, start: Timestamp, end: Timestamp) -> Option<Timestamp> {
    let slot = start.floor(LENGTH);
    let fits = end <= slot + LENGTH && end.since(start) < LENGTH;
    (frame_type == Some(frame::number::BATCH) && fits).then_some(slot)
}

/// The type of a whole frame.
#[must_use]
pub fn frame_type(frame: &[u8]) -> Option<u8> {
    frame.get(1).copied()
}

/// One message that tells all that these tell, under a sequence of its own; `None` if that is not possible: they are not
/// batches of one long window and one path table, or too much for one batch.
#[must_use]
pub fn merge(sequence: u64, members: &[Message]) -> Option<Message> {
    let first = members.first()?;
    let slot = slot(frame_type(&first.frame), first.start, first.end)?;
    let mut merged: Option<Batch> = None;
    let mut batches = Vec::with_capacity(members.len());
    for member in members {
        batches.push(decode(&member.frame)?);
    }
    // Parts of one window have the same start: the one that ends first is the earlier.
    batches.sort_by_key(|batch| (batch.window.start, batch.until));
    for batch in batches {
        let lies_within = batch.window.start >= slot && batch.window.end() <= slot + LENGTH;
        lies_within.then_some(())?;
        match &mut merged {
            None => merged = Some(batch),
            Some(merged) => follow(merged, batch)?,
        }
    }
    let mut merged = merged?;
    merged.sequence = sequence;
    merged.window = Window {
        start: slot,
        length: LENGTH,
    };
    let key = Key {
        boot_epoch: merged.boot_epoch,
        sequence,
    };
    let bytes = batch::encode(&merged).ok()?;
    Some(Message {
        key,
        table: first.table,
        start: slot,
        end: merged.until,
        exempt: first.exempt.clone(),
        replaces: ranges(members),
        frame: frame::frame_batch(&bytes),
    })
}

fn decode(bytes: &[u8]) -> Option<Batch> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let header = frame::parse_header(header).ok()?;
    batch::decode(frame::parse_batch(&header, payload).ok()?).ok()
}

/// Adds a later batch.
fn follow(merged: &mut Batch, later: Batch) -> Option<()> {
    let same = (merged.boot_epoch, merged.table, merged.schema)
        == (later.boot_epoch, later.table, later.schema);
    same.then_some(())?;
    merged.until = merged.until.max(later.until);
    match (&mut merged.health, &later.health) {
        (Some(own), Some(other)) => own.follow(other),
        (None, Some(other)) => merged.health = Some(*other),
        _ => {}
    }
    let mut rows: BTreeMap<u32, Report> = std::mem::take(&mut merged.rows).into_iter().collect();
    let told: Vec<u32> = later.rows.iter().map(|&(row, _)| row).collect();
    for (row, report) in later.rows {
        match rows.get_mut(&row) {
            Some(own) => own.follow(&report).ok()?,
            None => drop(rows.insert(row, report)),
        }
    }
    // A path of which a whole window tells nothing had no probe open when it ended. A part tells of a few paths only.
    if later.until == later.window.end() {
        for (row, report) in &mut rows {
            if told.binary_search(row).is_err() {
                report.counts.open = 0;
            }
        }
    }
    merged.rows = rows.into_iter().collect();
    Some(())
}

/// The sequences of these messages and those that they replaced, ascending: first and one past the last each.
fn ranges(members: &[Message]) -> Vec<(u64, u64)> {
    let own = members
        .iter()
        .map(|member| (member.key.sequence, member.key.sequence + 1));
    let replaced = members
        .iter()
        .flat_map(|member| member.replaces.iter().copied());
    let mut all: Vec<(u64, u64)> = own.chain(replaced).collect();
    all.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (first, end) in all {
        match ranges.last_mut() {
            Some((_, last)) if first <= *last => *last = end.max(*last),
            _ => ranges.push((first, end)),
        }
    }
    ranges
}
