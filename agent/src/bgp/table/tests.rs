//! A table beside the plainest one there can be.

use proptest::prelude::*;

use super::*;

fn nlri(prefix: &str, path_id: u32) -> Nlri {
    Nlri {
        prefix: prefix.parse().unwrap(),
        path_id,
    }
}

fn put(table: &mut Table, nlri: &Nlri, systems: &[u32]) {
    let path = table.intern(&AsPath::sequence(systems));
    if let Some(before) = table.insert(nlri, path) {
        table.release(before);
    }
    table.release(path);
}

fn take(table: &mut Table, nlri: &Nlri) {
    if let Some(before) = table.remove(nlri) {
        table.release(before);
    }
}

#[test]
fn the_longest_prefix_tells_whose_an_address_is() {
    let mut table = Table::default();
    for (prefix, id, path) in [
        ("0.0.0.0/0", 0, &[1u32, 9][..]),
        ("10.0.0.0/8", 0, &[1, 2]),
        ("10.1.0.0/16", 7, &[1, 3, 3]),
        ("2001:db8::/32", 0, &[1, 4]),
    ] {
        put(&mut table, &nlri(prefix, id), path);
    }
    let whose = |address: &str| {
        let (length, path) = table.longest(address.parse().unwrap())?;
        Some((length, table.origin(path)?))
    };
    assert_eq!(whose("10.2.0.1"), Some((8, 2)));
    assert_eq!(whose("10.1.255.255"), Some((16, 3)));
    assert_eq!(whose("2001:db8:1::1"), Some((32, 4)));
    assert_eq!(whose("11.0.0.1"), None);
    assert_eq!(whose("2001:db9::1"), None);
}

#[test]
fn links_are_between_systems_that_differ_and_are_known() {
    let mut table = Table::default();
    let path = AsPath::new(vec![
        Hop::As(1),
        Hop::As(1),
        Hop::As(2),
        Hop::set([7, 8]),
        Hop::As(5),
        Hop::As(6),
    ]);
    let id = table.intern(&path);
    let links: Vec<_> = table.links(id).map(|link| (link.near, link.far)).collect();
    assert_eq!(links, [(1, 2), (5, 6)]);
    assert_eq!(table.origin(id), Some(6));
}

#[test]
fn a_full_table_fits() {
    let mut table = Table::default();
    // As many routes and paths as there are, a tenth of them: 130,000 routes, 26,300 paths of five hops.
    for at in 0..130_000u32 {
        let prefix = match at % 5 {
            0 => format!("2001:{:x}:{:x}::/48", at >> 16, at & 0xffff),
            _ => format!("{}.{}.{}.0/24", 1 + (at >> 16), (at >> 8) & 0xff, at & 0xff),
        };
        let path = at % 26_300;
        put(
            &mut table,
            &nlri(&prefix, 0),
            &[64_500, 3_356, path % 900, path, at % 26_300 + 1],
        );
    }
    assert_eq!(table.len(), 130_000);
    assert!(table.bytes() < 30 << 20, "{}", table.bytes());
}

proptest! {
    /// Whatever comes and goes: it knows what the plainest table knows, counts alike, and keeps no path that nobody has.
    #[test]
    fn a_table_is_what_was_put_there(
        steps in prop::collection::vec((0u8..6, 0u32..3, prop::option::of(0u32..5)), 0..200),
    ) {
        let mut table = Table::default();
        let mut plain: BTreeMap<(IpNet, u32), Vec<u32>> = BTreeMap::new();
        for (prefix, id, path) in steps {
            let prefix = match prefix % 2 {
                0 => format!("10.{prefix}.0.0/16"),
                _ => format!("2001:db8:{prefix}::/48"),
            };
            let nlri = nlri(&prefix, id);
            let key = (nlri.prefix, nlri.path_id);
            match path {
                Some(path) => {
                    let systems = vec![1, path + 2, 9];
                    put(&mut table, &nlri, &systems);
                    plain.insert(key, systems);
                }
                None => {
                    take(&mut table, &nlri);
                    plain.remove(&key);
                }
            }
        }
        prop_assert_eq!(table.len(), plain.len());
        for ((prefix, path_id), systems) in &plain {
            let id = table.get(&Nlri { prefix: *prefix, path_id: *path_id }).unwrap();
            prop_assert_eq!(table.systems(id), &systems[..]);
        }
        let used: u32 = table.used().map(|(_, routes)| routes).sum();
        prop_assert_eq!(used as usize, plain.len());
        let distinct: std::collections::BTreeSet<_> = plain.values().collect();
        prop_assert_eq!(table.paths.known.len(), distinct.len());
        prop_assert_eq!(table.paths.all.len() - table.paths.free.len(), distinct.len());
        if plain.is_empty() {
            prop_assert_eq!(table.paths.bytes, 0);
        }
    }
}
