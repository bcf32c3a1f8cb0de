//! What services cost: evaluations with 500 services in 30 regions, beside the same without services; the evaluation in
//! which a region is lost and all of its services are placed together; and the answer to what would happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use leeward_benches::figure::{Figures, Target};
use leeward_common::{
    config::Document,
    histogram::Schema,
    id::{AgentId, OfferId, RegionId, ResourceId, ServiceId, TargetId},
    report::{Class, Counts, Path, ProbeKind, Report, Rtt, Window},
    time::Timestamp,
};
use leeward_engine::{
    Engine,
    effect::Effect,
    input::{Input, Reports},
    intent::{Amendment, Change, Limits, Offer, Profile, Replication, Service},
    placement::what_if,
    policy::{RegionSection, Sections},
};

const REGIONS: usize = 30;
const SERVICES: usize = 500;
const SECOND: Duration = Duration::from_secs(1);
const START: Timestamp = Timestamp::from_unix_us(1_767_225_600_000_000);
/// Evaluations are due every 50 ms.
const TURNS: u32 = 20;

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::new("placement");
    let mut bare = World::new(0)?;
    let mut full = World::new(SERVICES)?;
    for _ in 0..12 {
        bare.second(None)?;
        full.second(None)?;
    }
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        without.extend(bare.second(None)?);
        with.extend(full.second(None)?);
    }
    let mean = |all: &[Duration]| {
        let sum: Duration = all.iter().sum();
        milliseconds(sum) / all.len() as f64
    };
    let worst = |all: &[Duration]| milliseconds(all.iter().max().copied().unwrap_or_default());
    let figure = figures.figure("50 ms of a steady mesh, mean", mean(&with), "ms");
    figures.push(figure.beside("without services", mean(&without)));
    let figure = figures.figure("50 ms of a steady mesh, worst", worst(&with), "ms");
    figures.push(figure.beside("without services", worst(&without)));

    let view = full.engine.view();
    let failed = BTreeSet::from([region(0)?]);
    let began = Instant::now();
    let answer = what_if(&view, &failed);
    let took = began.elapsed();
    let name = format!(
        "what if one region fails, {} services",
        answer.services.len()
    );
    let figure = figures.figure(name, milliseconds(took), "ms");
    figures.push(figure.target(Target::AtMost(20.0)));
    let all: BTreeSet<_> = (0..REGIONS / 2)
        .map(region)
        .collect::<anyhow::Result<_>>()?;
    let began = Instant::now();
    let answer = what_if(&view, &all);
    let took = began.elapsed();
    let name = format!(
        "what if half of them fail, {} services",
        answer.services.len()
    );
    figures.push(figures.figure(name, milliseconds(took), "ms"));

    let before = full.moved;
    let (mut lost, mut lost_bare) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        lost.extend(full.second(Some(0))?);
        lost_bare.extend(bare.second(Some(0))?);
    }
    let name = format!(
        "50 ms while a region is lost and {} services move, worst",
        full.moved - before
    );
    let figure = figures.figure(name, worst(&lost), "ms");
    figures.push(figure.beside("without services", worst(&lost_bare)));
    figures.print();
    Ok(())
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn region(n: usize) -> anyhow::Result<RegionId> {
    Ok(RegionId::parse(&format!("r{n:02}"))?)
}

/// An engine with a mesh of one agent in each region.
struct World {
    engine: Engine,
    second: u32,
    moved: usize,
}

impl World {
    fn new(services: usize) -> anyhow::Result<Self> {
        let mut text = String::new();
        for n in 0..REGIONS {
            let (latitude, longitude) = (-60.0 + 4.0 * n as f64, -170.0 + 11.0 * n as f64);
            text += &format!(
                "[[region]]\nid = \"{}\"\nlatitude = {latitude:.1}\nlongitude = {longitude:.1}\n",
                region(n)?
            );
        }
        #[derive(serde::Deserialize)]
        struct Raw {
            region: Vec<RegionSection>,
        }
        let document = Document {
            file: "made up",
            text: &text,
        };
        let raw: Raw = document.parse()?;
        let sections = Sections {
            region: raw.region,
            ..Sections::default()
        };
        let mut engine = Engine::new(sections.into_policy(&document)?);
        let cores = ResourceId::parse("cores")?;
        let mut tell = |what| {
            let change = Change {
                who: "bench".to_owned(),
                why: String::new(),
                what,
            };
            engine.step(START, &Input::Change(Box::new(change)));
        };
        for n in 0..services {
            let what = Service {
                home: region(n % REGIONS)?,
                candidates: Vec::new(),
                multipliers: BTreeMap::new(),
                clients: BTreeMap::new(),
                profile: Profile::Balanced,
                limits: Limits {
                    rtt_p99: Some(Duration::from_millis(400)),
                    ..Limits::default()
                },
                needs: BTreeMap::from([(cores.clone(), 5.0 + (n % 7) as f64)]),
                divisible: n % 5 == 0,
                require: BTreeMap::new(),
                forbid: BTreeMap::new(),
                depends_on: BTreeSet::new(),
                checks: BTreeMap::new(),
                replication: Replication::None,
                priority: (n % 3) as u8,
                rto: None,
                rpo: None,
                failback: None,
            };
            tell(Amendment::PutService(
                ServiceId::parse(&format!("s{n:03}"))?,
                Box::new(what),
            ));
        }
        for n in 0..REGIONS {
            let what = Offer {
                region: region(n)?,
                amounts: BTreeMap::from([(cores.clone(), 180.0)]),
                until: None,
            };
            tell(Amendment::PutOffer(
                OfferId::parse(&format!("o{n:02}"))?,
                what,
            ));
        }
        Ok(Self {
            engine,
            second: 0,
            moved: 0,
        })
    }

    /// Lets a second pass, in which each agent reports once and not at the same time as the others. Returns what each of
    /// its evaluations took, with the reports that came before it.
    fn second(&mut self, lost: Option<usize>) -> anyhow::Result<Vec<Duration>> {
        let window = Window {
            start: START + SECOND * self.second,
            length: SECOND,
        };
        self.second += 1;
        let mut took = Vec::new();
        for turn in 0..TURNS {
            let at = window.end() + SECOND * turn / TURNS;
            let turn = usize::try_from(turn)?;
            let due = (0..REGIONS).filter(|n| n % TURNS as usize == turn && Some(*n) != lost);
            let mut inputs = Vec::new();
            for n in due {
                inputs.push(Input::Reports(reports(n, window, lost)?));
            }
            inputs.push(Input::Tick);
            let began = Instant::now();
            for input in &inputs {
                let effects = self.engine.step(at, input).into_iter();
                for own in effects.filter_map(Effect::decision) {
                    self.moved += usize::from(own.service.is_some());
                }
            }
            took.push(began.elapsed());
        }
        Ok(took)
    }
}

fn reports(n: usize, window: Window, lost: Option<usize>) -> anyhow::Result<Reports> {
    let mut rows = Vec::new();
    for to in (0..REGIONS).filter(|to| *to != n) {
        let answered = if lost == Some(to) { 0 } else { 10 };
        let mut counts = Counts {
            scheduled: 10,
            overdue: 10 - answered,
            ..Counts::default()
        };
        let mut rtt = Rtt::empty(Schema::TwoDigits);
        for probe in 0..answered {
            counts.end(Class::Replied);
            rtt.record(8_000 * u32::try_from(n.abs_diff(to))? + 300 * probe);
        }
        let path = Path {
            target: TargetId::parse(&format!("t{to:02}"))?,
            kind: ProbeKind::Icmp,
            region: Some(region(to)?),
        };
        rows.push((path, Report { counts, rtt }));
    }
    let (table, rows) = Reports::table_of(rows);
    Ok(Reports {
        agent: AgentId::parse(&format!("a{n:02}"))?,
        region: region(n)?,
        window,
        until: window.end(),
        health: None,
        table,
        rows,
    })
}
