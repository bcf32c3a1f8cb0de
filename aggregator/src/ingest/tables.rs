//! The path tables of a session: which were announced on its connection, and the rows of those that batches referred to lately.
//!
//! An agent makes a new table whenever its mesh changes and sends by the newest one but for what it still has of before. So
//! only a few tables are held; the rows of the others are read from the store again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use leeward_common::{report::Path, wire::limits::PATHS};

/// Rows of the tables of one boot epoch that are kept for a session: 16 full tables. Beyond it the oldest make room.
const ROWS: usize = 16 * PATHS;

/// What a table counts for beside its rows, so that empty ones have an end too.
const ROWS_OF_TABLE: usize = 64;

/// Rows that are held in memory: two full tables, that of now and one of before, or many small ones.
const ROWS_HELD: usize = 2 * PATHS;

/// Numbers of tables that made room and are remembered.
const FORGOTTEN: usize = 4_096;

/// A boot epoch and the number of a table within it.
type Name = (u64, u32);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Boot epochs that the hello named.
    epochs: BTreeSet<u64>,
    /// How many rows each has that was announced and is durable.
    announced: BTreeMap<Name, usize>,
    /// Announced, and gone since.
    forgotten: BTreeSet<Name>,
    /// The latest at the end.
    held: Vec<(Name, Arc<[Path]>)>,
}

/// Where the rows of a table are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// Here.
    Rows(Arc<[Path]>),
    /// In the store, or nowhere.
    Elsewhere,
    /// They made room for newer ones.
    Forgotten,
}

impl Tables {
    pub(super) fn new(epochs: impl IntoIterator<Item = u64>) -> Self {
        Self {
            epochs: epochs.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether batches of this boot epoch may come.
    pub(super) fn has_epoch(&self, boot: u64) -> bool {
        self.epochs.contains(&boot)
    }

    pub(super) fn find(&mut self, name: Name) -> Found {
        if let Some(at) = self.held.iter().rposition(|(held, _)| *held == name) {
            let found = self.held.remove(at);
            self.held.push(found.clone());
            return Found::Rows(found.1);
        }
        match self.forgotten.contains(&name) {
            true => Found::Forgotten,
            false => Found::Elsewhere,
        }
    }

    /// Holds the rows of a table.
    pub(super) fn hold(&mut self, name: Name, rows: &Arc<[Path]>) {
        self.held.retain(|(held, _)| *held != name);
        self.held.push((name, Arc::clone(rows)));
        let mut held: usize = self.held.iter().map(|(_, rows)| rows.len()).sum();
        while held > ROWS_HELD && self.held.len() > 1 {
            held -= self.held.remove(0).1.len();
        }
    }

    /// The tables of the same boot epoch that have to go when this one comes, oldest first.
    pub(super) fn in_the_way(&self, name: Name, rows: usize) -> Vec<u32> {
        let of = (name.0, 0)..=(name.0, u32::MAX);
        let others = self.announced.range(of).filter(|&(&own, _)| own != name);
        let cost = |rows: usize| rows + ROWS_OF_TABLE;
        let all: usize = others.clone().map(|(_, &rows)| cost(rows)).sum();
        let mut over = (all + cost(rows)).saturating_sub(ROWS);
        let goes = |&(_, &rows): &(&Name, &usize)| {
            let goes = over > 0;
            over = over.saturating_sub(cost(rows));
            goes
        };
        others
            .take_while(goes)
            .map(|(&(_, number), _)| number)
            .collect()
    }

    /// Notes that a table is durable, and that these are not any more.
    pub(super) fn announced(&mut self, name: Name, rows: &Arc<[Path]>, gone: &[u32]) {
        for &number in gone {
            let gone = (name.0, number);
            self.announced.remove(&gone);
            self.held.retain(|(held, _)| *held != gone);
            self.forgotten.insert(gone);
        }
        while self.forgotten.len() > FORGOTTEN {
            self.forgotten.pop_first();
        }
        self.forgotten.remove(&name);
        self.announced.insert(name, rows.len());
        self.hold(name, rows);
    }
}

#[cfg(test)]
mod tests {
    use leeward_common::{id::TargetId, report::ProbeKind};

    use super::*;

    fn rows(count: usize) -> Arc<[Path]> {
        let path = |at| Path {
            target: TargetId::parse(&format!("target-{at}")).unwrap(),
            kind: ProbeKind::Icmp,
            region: None,
        };
        (0..count).map(path).collect()
    }

    fn announce(tables: &mut Tables, number: u32, rows: &Arc<[Path]>) -> Vec<u32> {
        let gone = tables.in_the_way((7, number), rows.len());
        tables.announced((7, number), rows, &gone);
        gone
    }

    #[test]
    fn few_tables_are_held_and_the_others_are_in_the_store() {
        let mut tables = Tables::new([7]);
        let rows = rows(PATHS / 2);
        for number in 1..=6 {
            assert!(announce(&mut tables, number, &rows).is_empty());
        }
        assert_eq!(tables.find((7, 6)), Found::Rows(rows.clone()));
        assert_eq!(tables.find((7, 1)), Found::Elsewhere);
        assert_eq!(tables.find((7, 9)), Found::Elsewhere);
        assert_eq!(tables.find((8, 6)), Found::Elsewhere);
        tables.hold((7, 1), &rows);
        assert_eq!(tables.find((7, 1)), Found::Rows(rows));
        assert!(tables.held.len() == 4);
    }

    /// The one that is announced stays, however old it is: its batches come next.
    #[test]
    fn the_oldest_make_room_and_never_the_one_that_comes() {
        let mut tables = Tables::new([7]);
        let full = rows(PATHS);
        for number in 2..=16 {
            assert!(announce(&mut tables, number, &full).is_empty());
        }
        assert_eq!(announce(&mut tables, 1, &full), [2]);
        assert_eq!(tables.find((7, 1)), Found::Rows(full));
        assert_eq!(tables.find((7, 2)), Found::Forgotten);
        assert_eq!(tables.find((7, 3)), Found::Elsewhere);
    }

    #[test]
    fn tables_without_rows_have_an_end_too() {
        let mut tables = Tables::new([7]);
        let (none, mut gone) = (rows(0), 0);
        for number in 1..=10_000 {
            gone += announce(&mut tables, number, &none).len();
        }
        assert!(gone > 0);
        assert!(tables.announced.len() <= ROWS / ROWS_OF_TABLE);
        assert!(tables.forgotten.len() <= FORGOTTEN);
    }
}
