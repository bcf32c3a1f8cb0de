//! `leeward agent …`: who measures, and whether its view counts.

use std::fmt::Write;

use leeward_common::api::v1::{Agent, Agents, State};

use crate::{
    args::{AgentCommand, Cli},
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    table::{Align, Table},
    words,
};

/// Runs `leeward agent …`.
///
/// # Errors
///
/// Returns why there is no answer.
pub fn run(cli: &Cli, out: &Output, command: &AgentCommand) -> Result<Exit, Failure> {
    let client = Client::new(&cli.global)?;
    match command {
        AgentCommand::Ls => {
            let agents: Agents = client.ask("/v1/agents")?;
            out.list(&agents, &agents.agents, "", &table(&agents.agents))?;
            if agents.agents.is_empty() {
                out.talk("no agent has registered yet\n  do     leeward pki issue agent --help, then start leeward-agent");
            }
            let good = !agents.agents.is_empty()
                && agents.agents.iter().all(|agent| agent.state == State::Ok);
            Ok(out.verdict(good))
        }
        AgentCommand::Show { agent } => {
            let agent: Agent = client.ask(&format!("/v1/agents/{agent}"))?;
            out.one(&agent, |out| text(out, &agent))?;
            Ok(out.verdict(agent.state == State::Ok))
        }
    }
}

fn table(agents: &[Agent]) -> Table {
    let mut table = Table::new()
        .left("agent")
        .left("region")
        .left("state")
        .right("last report")
        .wide("addresses", Align::Left)
        .wide("build", Align::Left)
        .wide("sent", Align::Right)
        .wide("memory", Align::Right)
        .right("refused")
        .left("why");
    for agent in agents {
        let account = agent.own_account.as_ref();
        table.row(vec![
            agent.agent_id.as_str().into(),
            agent.region_id.as_str().into(),
            words::state(agent.state),
            match agent.data_age_ms {
                Some(ms) => format!("{} ago", words::age(Some(ms))),
                None => "never".to_owned(),
            }
            .into(),
            addresses(agent).into(),
            agent.build.as_str().into(),
            account
                .map_or_else(|| "?".to_owned(), |account| account.sent.to_string())
                .into(),
            account
                .map_or_else(
                    || "?".to_owned(),
                    |account| mebibytes(account.resident_bytes),
                )
                .into(),
            agent.refused_targets.len().to_string().into(),
            agent.detail.as_str().into(),
        ]);
    }
    table
}

fn addresses(agent: &Agent) -> String {
    let addresses: Vec<String> = agent.addresses.iter().map(ToString::to_string).collect();
    addresses.join(" ")
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn text(out: &Output, agent: &Agent) -> String {
    let state = out.paint(words::tone(agent.state), agent.state.as_str());
    let mut text = format!(
        "{} in {} is {state}: {}\n\n",
        agent.agent_id, agent.region_id, agent.detail
    );
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "  {label:<12}  {value}");
    };
    let time = |time: Option<_>| {
        time.map_or_else(
            || "no".to_owned(),
            |time| format!("since {} UTC", words::date_time(time)),
        )
    };
    let carried = match agent.transport.as_deref() {
        Some("tls") => ", by TLS over TCP instead of QUIC",
        _ => "",
    };
    line("connected", &(time(agent.connected_since) + carried));
    let report = agent.last_report_at.map_or_else(
        || "never".to_owned(),
        |at| {
            format!(
                "{} UTC, {} ago",
                words::date_time(at),
                words::age(agent.data_age_ms)
            )
        },
    );
    line("last report", &report);
    line("addresses", &addresses(agent));
    line("build", &agent.build);
    if let Some(account) = &agent.own_account {
        line(
            "probes",
            &format!(
                "{} scheduled, {} sent, {} not sent, {} dropped by its host, {} strays",
                account.scheduled,
                account.sent,
                account.not_sent,
                account.local_drop,
                account.strays
            ),
        );
        line(
            "lateness",
            &format!(
                "{} p99",
                words::milliseconds(account.send_lateness_p99_us as f64)
            ),
        );
        line(
            "batches",
            &format!(
                "{} waiting, {} given up",
                account.batches_waiting, account.batches_dropped
            ),
        );
        line(
            "uses",
            &format!(
                "{}, {:.1} s of CPU",
                mebibytes(account.resident_bytes),
                account.cpu_us as f64 / 1e6
            ),
        );
        line("time stamps", &account.stamps);
    }
    for refused in &agent.refused_targets {
        line(
            "refuses",
            &format!("{}: {}", refused.target_id, refused.reason),
        );
    }
    text
}
