//! `leeward policy …`: the policy in force, the shadow that only records what it would do, and what each was worth.

use std::fmt::Write;

use leeward_common::{
    api::v1::{Policies, Scoreboard, ShadowPolicy, ShadowSpec, ShadowState, WrittenPolicy},
    id::RegionId,
};

use crate::{
    args::{Cli, How, PolicyCommand, ShadowCommand, Which},
    capacity::dry,
    client::Client,
    exit::{Exit, Failure},
    output::{Output, Tone},
    replay, service,
    table::Table,
    words,
};

/// Where the shadow policy is.
const SHADOW: &str = "/v1/policies/shadow";

/// Runs `leeward policy …`.
///
/// # Errors
///
/// Returns why there is no answer, or why nothing was changed.
pub fn run(cli: &Cli, out: &Output, command: Option<&PolicyCommand>) -> Result<Exit, Failure> {
    match command {
        None | Some(PolicyCommand::Show { which: None }) => {
            let policies: Policies = Client::new(&cli.global)?.ask("/v1/policies")?;
            out.one(&policies, |out| text(out, &policies))?;
            Ok(out.verdict(keeps_up(&policies)))
        }
        Some(PolicyCommand::Show {
            which: Some(Which::Current),
        }) => {
            let policy: WrittenPolicy = Client::new(&cli.global)?.ask("/v1/policies/current")?;
            out.one(&policy, |_| policy.toml.clone())?;
            Ok(Exit::Done)
        }
        Some(PolicyCommand::Show {
            which: Some(Which::Shadow),
        }) => {
            let policy: ShadowPolicy = Client::new(&cli.global)?.ask(SHADOW)?;
            out.one(&policy, |_| {
                format!(
                    "# version {} by {} at {}\n{}",
                    policy.version, policy.who, policy.at, policy.written.toml
                )
            })?;
            Ok(Exit::Done)
        }
        Some(PolicyCommand::Scoreboard) => scoreboard(cli, out),
        Some(PolicyCommand::Shadow {
            command: ShadowCommand::Set { file, why, how },
        }) => {
            let spec = ShadowSpec {
                policy: replay::policy(file)?,
                why: why.clone(),
            };
            set(cli, out, &spec, how)
        }
        Some(PolicyCommand::Shadow {
            command: ShadowCommand::Clear { why, how },
        }) => service::remove(cli, out, SHADOW, "the shadow policy", why, how),
    }
}

fn keeps_up(policies: &Policies) -> bool {
    let bad = [ShadowState::Behind, ShadowState::Failed];
    let shadow = policies.shadow.as_ref();
    shadow.is_none_or(|shadow| !bad.contains(&shadow.state))
}

fn set(cli: &Cli, out: &Output, spec: &ShadowSpec, how: &How) -> Result<Exit, Failure> {
    if how.dry_run {
        return dry(out, spec);
    }
    let client = Client::new(&cli.global)?;
    let set: ShadowPolicy = client.put(SHADOW, spec, how.if_version)?;
    out.one(&set, |_| {
        format!(
            "policy {} is the shadow (change {})\n\n  how it does: leeward policy scoreboard\n",
            set.written.policy_version, set.version
        )
    })?;
    Ok(Exit::Done)
}

fn scoreboard(cli: &Cli, out: &Output) -> Result<Exit, Failure> {
    let policies: Policies = Client::new(&cli.global)?.ask("/v1/policies")?;
    if policies.shadow.is_none() {
        return Err(Failure::new(Exit::NotFound, "no shadow policy is set")
            .step("leeward policy shadow set FILE"));
    }
    let Some(board) = &policies.scoreboard else {
        return Err(Failure::new(
            Exit::NotEnoughKnown,
            "the shadow policy was not followed for long enough to tell",
        )
        .step("ask again in a few seconds"));
    };
    let head = format!("{}\n\n{}\n", policies.summary, replay::scoreboard(board));
    out.list(board, &board.divergences, &head, &divergences(board))?;
    Ok(out.verdict(keeps_up(&policies)))
}

fn divergences(board: &Scoreboard) -> Table {
    let mut table = Table::new()
        .left("since")
        .left("until")
        .left("whose")
        .left("in force")
        .left("shadow")
        .left("why the shadow");
    let region = |region: &Option<RegionId>| {
        let name = region.as_ref().map(RegionId::as_str);
        name.unwrap_or("none").to_owned()
    };
    for own in &board.divergences {
        let until = own.until.map_or_else(|| "now".to_owned(), words::date_time);
        table.row(vec![
            words::date_time(own.since).into(),
            until.into(),
            own.owner.as_str().into(),
            region(&own.current).into(),
            region(&own.other).into(),
            own.other_why.as_str().into(),
        ]);
    }
    table
}

fn text(out: &Output, policies: &Policies) -> String {
    let tone = match keeps_up(policies) {
        true => Tone::Strong,
        false => Tone::Warn,
    };
    let mut text = format!("{}\n\n", out.paint(tone, &policies.summary));
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "  {label:<9}  {value}");
    };
    let current = &policies.current;
    let regions = words::plural(current.regions, "region");
    line(
        "in force",
        &format!("{}, {regions}", current.policy_version),
    );
    if let Some(shadow) = &policies.shadow {
        let set = format!("{}, by {}", shadow.policy_version, shadow.who);
        line("shadow", &format!("{set} (change {})", shadow.version));
        let since = shadow.since.map(words::date_time);
        let since = since.map_or_else(String::new, |since| format!(", counts since {since} UTC"));
        line("state", &format!("{}{since}", shadow.state));
        for (label, value) in [("but", &shadow.detail), ("why", &shadow.why)] {
            if !value.is_empty() {
                line(label, value);
            }
        }
    }
    if !policies.differences.is_empty() {
        let mut table = Table::new()
            .left("parameter")
            .left("in force")
            .left("shadow");
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        for own in &policies.differences {
            table.row(vec![
                own.parameter.as_str().into(),
                value(&own.current).into(),
                value(&own.shadow).into(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render(out, false));
    }
    text
}
