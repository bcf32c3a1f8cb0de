//! Geography and capacity of a candidate: the weight that it has before anything is measured. Higher is better.

use crate::{
    policy::{Region, Weights},
    select::Term,
    weight::{Addend, Fact, Sum},
};

/// Mean radius of the earth in km (IUGG).
const EARTH_RADIUS_KM: f64 = 6_371.008_8;

/// The baseline weight of `candidate` for `primary`, as addends of its logarithm.
/// `configured` is the multiplier of the failover configuration.
pub fn baseline(
    weights: &Weights,
    primary: &Region,
    candidate: &Region,
    configured: Option<f64>,
    sum: &mut Sum,
) {
    let distance_km = great_circle_km(primary, candidate);
    let proximity = 1.0 / (1.0 + distance_km / weights.distance_scale_km);
    sum.push(Addend::exact(
        Term::Distance,
        weights.distance * proximity.ln(),
        Fact::Km(distance_km),
    ));
    sum.push(Addend::exact(
        Term::Capacity,
        weights.capacity * candidate.capacity.ln(),
        Fact::Capacity(candidate.capacity),
    ));
    if let Some(factor) = configured {
        sum.push(Addend::exact(
            Term::Configured,
            factor.ln(),
            Fact::Factor(factor),
        ));
    }
}

/// Great-circle distance by the haversine formula.
#[must_use]
pub fn great_circle_km(a: &Region, b: &Region) -> f64 {
    let (lat_a, lat_b) = (a.latitude.to_radians(), b.latitude.to_radians());
    let half_lat = (lat_b - lat_a) / 2.0;
    let half_lon = (b.longitude - a.longitude).to_radians() / 2.0;
    let h = half_lat.sin().powi(2) + lat_a.cos() * lat_b.cos() * half_lon.sin().powi(2);
    2.0 * EARTH_RADIUS_KM * h.sqrt().min(1.0).asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(latitude: f64, longitude: f64) -> Region {
        Region {
            latitude,
            longitude,
            capacity: 1.0,
            labels: std::collections::BTreeMap::new(),
            risk_groups: std::collections::BTreeSet::new(),
            prefixes: std::collections::BTreeSet::new(),
            origins: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn distances_are_those_of_the_globe() {
        let (paris, new_york) = (region(48.8566, 2.3522), region(40.7128, -74.0060));
        let km = great_circle_km(&paris, &new_york);
        assert!((km - 5_837.0).abs() < 5.0, "{km}");
        assert_eq!(great_circle_km(&paris, &paris), 0.0);
        let half_round = great_circle_km(&region(0.0, 0.0), &region(0.0, 180.0));
        assert!((half_round - std::f64::consts::PI * EARTH_RADIUS_KM).abs() < 1.0);
    }
}
