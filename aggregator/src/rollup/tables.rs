//! Which paths the rows of a batch are, as they stand in keys.

use std::{collections::BTreeMap, rc::Rc};

use leeward_common::{histogram::Schema, id::RegionId, report::Path, wire::batch::Head};

use crate::{
    recover,
    store::{
        Read, StoreError,
        key::{Epoch, path::PathKey},
    },
};

/// The paths of a table, row by row: [`PathKey::bytes`].
pub type Paths = Rc<[Box<[u8]>]>;

/// Paths remembered at once; then all are forgotten and looked up again.
const REMEMBERED: usize = 1 << 20;

/// The path tables of a store.
#[expect(missing_debug_implementations, reason = "a store has none")]
pub struct Tables<'a> {
    store: &'a dyn Read,
    known: BTreeMap<(Epoch, u32, RegionId, Schema), Option<Paths>>,
    remembered: usize,
}

impl<'a> Tables<'a> {
    /// None is known yet.
    #[must_use]
    pub fn new(store: &'a dyn Read) -> Self {
        Self {
            store,
            known: BTreeMap::new(),
            remembered: 0,
        }
    }

    /// The paths of a batch's table.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] when the table is gone or cannot be read.
    pub fn paths(&mut self, batch: &Head, region: &RegionId) -> Result<Paths, StoreError> {
        let epoch = Epoch {
            agent: batch.key.agent.clone(),
            boot: batch.key.boot_epoch,
        };
        let number = batch.key.table;
        let key = (epoch, number, region.clone(), batch.schema);
        let found = match self.known.get(&key) {
            Some(found) => found.clone(),
            None => {
                let table = recover::table(self.store, &key.0, number)?;
                let paths = table.map(|table| paths_of(&table, batch, region));
                self.remembered += paths.as_ref().map_or(1, |paths| paths.len().max(1));
                if self.remembered > REMEMBERED {
                    self.known.clear();
                    self.remembered = 0;
                }
                self.known.insert(key, paths.clone());
                paths
            }
        };
        found.ok_or_else(|| StoreError::Malformed {
            what: "batch",
            why: format!("its path table {number} is gone"),
        })
    }
}

fn paths_of(table: &[Path], batch: &Head, region: &RegionId) -> Paths {
    let bytes = |path: &Path| {
        let key = PathKey {
            from: region.clone(),
            to: path.region.clone(),
            agent: batch.key.agent.clone(),
            target: path.target.clone(),
            kind: path.kind,
            schema: batch.schema,
        };
        key.bytes().into_boxed_slice()
    };
    table.iter().map(bytes).collect()
}
