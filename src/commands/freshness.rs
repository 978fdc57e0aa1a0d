//! `martd freshness`: how old each mart is, as a table.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::Value as Json;

use super::table::{Cell, TextTable, Tone, colours, printable};
use super::{EXIT_NO, EXIT_UNKNOWN, EXIT_WARN, ServerArgs, complain, print};
use crate::http::client::ClientError;

/// What `freshness` needs.
#[derive(Debug, Args)]
pub struct FreshnessArgs {
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    format: ReportFormat,

    #[command(flatten)]
    server: ServerArgs,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// For people
    #[default]
    Table,
    /// As /v1/freshness has it
    Json,
}

pub(super) async fn run(args: FreshnessArgs) -> Result<ExitCode, ClientError> {
    let reply = args.server.client().get("/v1/freshness").await?;
    if reply.status != 200 {
        return Ok(complain(&reply.problem().await.to_string(), EXIT_UNKNOWN));
    }
    let document = reply.json().await?;
    match args.format {
        ReportFormat::Json => print(&format!("{document}\n")),
        ReportFormat::Table => show(&document),
    }
    Ok(match document["status"].as_str() {
        Some("pass") => ExitCode::SUCCESS,
        Some("warn") => EXIT_WARN.into(),
        _ => EXIT_NO.into(),
    })
}

fn show(document: &Json) {
    let mut table = TextTable::new(
        ["mart", "status", "age", "last refreshed", "warn after", "error after", "rows"],
        &[2, 4, 5, 6],
    );
    for mart in document["results"].as_array().into_iter().flatten() {
        table.row(vec![
            text(&mart["name"]).into(),
            status(mart),
            age(&mart["max_loaded_at_time_ago_in_s"]).into(),
            moment(&mart["max_loaded_at"]).into(),
            period(&mart["criteria"]["warn_after"]).into(),
            period(&mart["criteria"]["error_after"]).into(),
            mart["rows"].as_u64().map_or_else(|| "-".into(), Cell::from),
        ]);
    }
    let results = document["results"].as_array();
    if results.is_some_and(|results| !results.is_empty()) {
        print(&table.render(colours()));
    }
    let build = match document["build"]["invocation_id"].as_str() {
        Some(id) => format!(", build {}", printable(id, usize::MAX)),
        None => String::new(),
    };
    match document["snapshot"].as_str() {
        Some(id) => {
            let status = text(&document["status"]);
            let unverified = match document["verified"] == false {
                true => ", UNVERIFIED: no good build vouches for what is served",
                false => "",
            };
            print(&format!("status {status}, snapshot {id}{build}{unverified}\n"));
        }
        None => print("nothing is served yet; martd check says what becomes of each file\n"),
    }
    for mart in document["results"].as_array().into_iter().flatten() {
        if let Some(problem) = mart["problem"].as_str() {
            let line = format!("{}: {problem}", text(&mart["name"]));
            print(&format!("{}\n", printable(&line, usize::MAX)));
        }
    }
    if let Some(line) = mirror(&document["mirror"]) {
        print(&format!("{}\n", printable(&line, usize::MAX)));
    }
    for (word, what) in [("held", &document["held"]), ("not served yet", &document["building"])] {
        if let Some(reason) = what["reason"].as_str() {
            print(&format!("{word}: {}\n", printable(reason, usize::MAX)));
        }
    }
}

/// How far the directory's mirror is behind, and why.
fn mirror(mirror: &Json) -> Option<String> {
    let mirrors = format!("the mirror of {}", mirror["source"].as_str()?);
    if mirror["seconds_behind"] == 0 {
        return Some(format!("{mirrors} is up to date"));
    }
    let (behind, objects) = (age(&mirror["seconds_behind"]), &mirror["objects_behind"]);
    let missing = match objects.as_u64() {
        Some(0) | None => String::new(),
        Some(1) => ", 1 object is missing".to_owned(),
        Some(count) => format!(", {count} objects are missing"),
    };
    let silent = match mirror["silent"] == true {
        true => format!(", and silent since {}", moment(&mirror["checked_at"])),
        false => String::new(),
    };
    let reason = mirror["error"]["reason"].as_str();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    Some(format!("{mirrors} is {behind} behind{missing}{silent}{reason}"))
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or("-")
}

fn status(mart: &Json) -> Cell {
    let tone = match mart["status"].as_str() {
        Some("pass") => Tone::Good,
        Some("warn") => Tone::Warn,
        _ => Tone::Bad,
    };
    let orphan = if mart["orphan"] == true { " (orphan)" } else { "" };
    Cell::new(format!("{}{orphan}", text(&mart["status"])), tone)
}

fn moment(json: &Json) -> String {
    let moment = json.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    moment.map_or_else(|| "-".to_owned(), |moment| moment.strftime("%F %T UTC").to_string())
}

/// The two largest units say enough.
fn age(json: &Json) -> String {
    let Some(seconds) = json.as_f64() else { return "-".to_owned() };
    let seconds = seconds.max(0.0) as u64;
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

fn period(json: &Json) -> String {
    match (json["count"].as_u64(), json["period"].as_str()) {
        (Some(count), Some(unit)) => format!("{count} {unit}{}", if count == 1 { "" } else { "s" }),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mirror_tells_how_far_it_is_behind_and_why() {
        let of = |behind: u64, objects: u64, silent: bool, error: Json| {
            mirror(&json!({
                "source": "s3://b/p", "checked_at": "2026-11-28T06:00:09Z", "seconds_behind": behind,
                "objects_behind": objects, "silent": silent, "error": error,
            }))
            .expect("a line")
        };
        assert_eq!(of(0, 0, false, Json::Null), "the mirror of s3://b/p is up to date");
        let writing = of(61, 1, false, Json::Null);
        assert_eq!(writing, "the mirror of s3://b/p is 1m 1s behind, 1 object is missing");
        assert_eq!(
            of(3_600, 7, true, json!({"reason": "refused"})),
            "the mirror of s3://b/p is 1h 0m behind, 7 objects are missing, and silent since \
             2026-11-28 06:00:09 UTC: refused"
        );
        assert_eq!(mirror(&Json::Null), None);
    }

    #[test]
    fn ages_have_two_units() {
        for (seconds, expected) in
            [(0.4, "0s"), (-5.0, "0s"), (61.0, "1m 1s"), (3_600.0, "1h 0m"), (90_061.0, "1d 1h")]
        {
            assert_eq!(age(&seconds.into()), expected);
        }
        assert_eq!(age(&Json::Null), "-");
    }
}
