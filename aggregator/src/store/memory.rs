//! A store in memory, for tests: it forgets when it is dropped, and fails when told to.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Aside, AtOnce, Entry, Health, Read, Store, StoreError, Visit, Writes, key::Column};

type Columns = BTreeMap<Column, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A store in memory. A clone is the same store, as a directory opened again would be.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    columns: Arc<Mutex<Columns>>,
    fails: Arc<AtomicBool>,
}

impl Memory {
    /// From now on every write fails, or none does.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// Puts bytes anywhere, as a fault of a disk would.
    pub fn put(&self, column: Column, key: &[u8], value: &[u8]) {
        self.columns()
            .entry(column)
            .or_default()
            .insert(key.to_vec(), value.to_vec());
    }

    fn columns(&self) -> MutexGuard<'_, Columns> {
        self.columns.lock().expect("no holder of this lock panics")
    }
}

impl Read for Memory {
    fn scan(&self, column: Column, from: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        // A copy, because whoever visits may scan another column meanwhile.
        let map = self.columns().get(&column).cloned().unwrap_or_default();
        for (key, value) in map.range(from.to_vec()..) {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(&self, column: Column, until: &[u8], visit: Visit<'_>) -> Result<(), StoreError> {
        let map = self.columns().get(&column).cloned().unwrap_or_default();
        for (key, value) in map.range(..until.to_vec()).rev() {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, column: Column) -> Result<Option<Entry>, StoreError> {
        let columns = self.columns();
        let last = columns.get(&column).and_then(|map| map.last_key_value());
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let columns = self.columns();
        Ok(columns.get(&column).and_then(|map| map.get(key)).cloned())
    }

    fn at_once(&self, read: AtOnce<'_>) -> Result<(), StoreError> {
        let columns = self.columns().clone();
        read(&Self {
            columns: Arc::new(Mutex::new(columns)),
            ..Self::default()
        })
    }
}

impl Aside for Memory {
    fn write(&self, writes: &Writes) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Told);
        }
        let mut columns = self.columns();
        for (column, key, value) in &writes.puts {
            columns
                .entry(*column)
                .or_default()
                .insert(key.clone(), value.clone());
        }
        for (column, key) in &writes.deletes {
            columns.entry(*column).or_default().remove(key);
        }
        Ok(())
    }

    fn health(&self) -> Result<Health, StoreError> {
        Ok(Health::default())
    }

    /// There are no files to share and no directory to copy to.
    fn copy_to(&self, _: &std::path::Path) -> Result<(), StoreError> {
        Err(StoreError::Told)
    }
}

impl Store for Memory {
    fn reader(&self) -> Arc<dyn Read> {
        Arc::new(self.clone())
    }

    fn aside(&self) -> Arc<dyn Aside> {
        Arc::new(self.clone())
    }

    fn commit(&mut self, writes: &Writes) -> Result<(), StoreError> {
        self.write(writes)
    }

    fn revive(&mut self) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Told);
        }
        Ok(())
    }

    fn drop_before(&mut self, column: Column, until: &[u8]) -> Result<(), StoreError> {
        if let Some(map) = self.columns().get_mut(&column) {
            *map = map.split_off(until);
        }
        Ok(())
    }
}
