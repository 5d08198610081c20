//! What the demo prints: at most 100 characters wide, colour on a terminal only, codes masked unless asked for.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use super::announced::{Announced, Outcome};
use super::summary::Summary;
use super::surroundings::Surroundings;
use super::{Args, RATE_LIMIT};
use crate::app::Running;
use crate::dashdoc::simulator::TruckerReport;
use crate::invite::{Failure, InviteCode};

/// Stands for a code, and says nothing about it.
const MASK: &str = "••••••";

/// Columns of the screen that are used.
const WIDTH: usize = 100;

/// Longest command that has its explanation on the same line.
const COMMAND_WIDTH: usize = 36;

/// Where the demo prints. An error means that nobody reads on.
pub(super) struct Screen<W> {
    out: W,
    colour: bool,
    show_codes: bool,
}

/// How a text is painted on a terminal.
#[derive(Clone, Copy)]
enum Paint {
    Bold,
    Dim,
    Good,
    Bad,
}

/// What is known about an announcement beside its content.
pub(super) struct Context {
    /// From sending to arrival, if the demo sent the event.
    pub(super) waited: Option<Duration>,
    /// The trucker from the API's side.
    pub(super) report: Option<TruckerReport>,
    /// The last failure that the invite met, from the store.
    pub(super) trouble: Option<Failure>,
}

impl Screen<io::Stdout> {
    /// The terminal, or whatever stands in its place.
    pub(super) fn stdout(show_codes: bool) -> Self {
        let out = io::stdout();
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { out, colour, show_codes }
    }
}

impl<W: Write> Screen<W> {
    /// What runs where, and what is going to happen.
    pub(super) fn heading(
        &mut self,
        args: &Args,
        around: &Surroundings,
        running: &Running,
    ) -> io::Result<()> {
        let title = self.paint(Paint::Bold, "invite-relay demo");
        let (entrance, exit) = (around.entrance(running.webhook), around.exit());
        let (limit, faults) = (RATE_LIMIT, &args.faults);
        let fault_note = match faults.as_str() {
            "none" => "no faults (try --faults flaky)".to_owned(),
            profile => format!("faults: {profile}"),
        };
        writeln!(self.out, "{title}: a relay and all that it needs, in this one process\n")?;
        self.place("Dashdoc API", &around.api_url, "simulated")?;
        self.place("", &format!("{limit} calls per second, {fault_note}"), "")?;
        if around.has_broker() {
            self.place("events in", &entrance, "")?;
            self.place("invites out", &exit, "")?;
            self.place("", "queues of this demo, removed when it ends", "")?;
        } else {
            self.place("events in", &entrance, "signed (Standard Webhooks)")?;
            self.place("invites out", &exit, "signature verified")?;
        }
        self.place("admin", &format!("http://{}", running.admin), "/livez /readyz /metrics")?;
        let store = around.directory().join("relay.db");
        self.place("store", &store.display().to_string(), "SQLite, removed at the end")?;
        let truckers = match args.events {
            1 => "One trucker is".to_owned(),
            n => format!("{n} truckers are"),
        };
        writeln!(
            self.out,
            "\n{truckers} created, {} per second; each is to get one valid code.\n",
            args.rate
        )?;
        let columns = row("SINCE SENT", "TRUCKER", "CODE", "GEN", "ORIGIN", "API CALLS", "TROUBLE");
        let columns = self.paint(Paint::Dim, &columns);
        writeln!(self.out, "{columns}")?;
        self.out.flush()
    }

    /// One line of the heading.
    fn place(&mut self, what: &str, place: &str, note: &str) -> io::Result<()> {
        let note = self.paint(Paint::Dim, note);
        writeln!(self.out, "{}", format!("  {what:<13}{place:<54}  {note}").trim_end())
    }

    /// An invite is ready, or failed.
    pub(super) fn announced(&mut self, announced: &Announced, context: &Context) -> io::Result<()> {
        let waited = context.waited.map_or_else(|| "-".to_owned(), human);
        let calls = context.report.as_ref().map(calls).unwrap_or_default();
        let trouble = context.trouble.as_ref().map(ToString::to_string).unwrap_or_default();
        let (key, generation) = (&announced.key, announced.generation);
        let line = match &announced.outcome {
            Outcome::Ready { code, origin } => {
                row(&waited, key, self.code(code), generation, origin, &calls, &trouble)
            }
            Outcome::Failed { class, code, attempts } => {
                let failure = format!("{class} ({code}), attempts: {attempts}");
                let line = row(&waited, key, "-", generation, "failed", &calls, &failure);
                self.paint(Paint::Bad, &line)
            }
        };
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Something worth a line of its own among the invites.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint(Paint::Dim, text);
        writeln!(self.out, "{:>10}  {text}", "…")?;
        self.out.flush()
    }

    /// Something that must not happen.
    pub(super) fn trouble(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint(Paint::Bad, text);
        writeln!(self.out, "{:>10}  {text}", "!")?;
        self.out.flush()
    }

    /// The numbers at the end.
    pub(super) fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        let title = self.paint(Paint::Bold, "Summary");
        writeln!(self.out, "\n{title}")?;
        for line in summary.lines() {
            let paint = match line.good {
                Some(true) => Paint::Good,
                Some(false) => Paint::Bad,
                None => Paint::Bold,
            };
            let value = self.paint(paint, &line.value);
            let note = self.paint(Paint::Dim, &line.note);
            // Padded by hand: a painted text is longer than it looks.
            let gap = " ".repeat(24_usize.saturating_sub(line.value.chars().count()));
            writeln!(self.out, "{}", format!("  {:<20}{value}{gap}  {note}", line.name).trim_end())?;
        }
        self.out.flush()
    }

    /// Commands and what they show: side by side, or one below the other where one is long.
    pub(super) fn look_next(&mut self, title: &str, next: &[(String, &str)]) -> io::Result<()> {
        let title = self.paint(Paint::Bold, title);
        writeln!(self.out, "\n{title}")?;
        let all_short = next.iter().all(|(command, _)| command.chars().count() <= COMMAND_WIDTH);
        for (command, what) in next {
            if all_short {
                let what = self.paint(Paint::Dim, what);
                writeln!(self.out, "  {command:<COMMAND_WIDTH$}  {what}")?;
            } else {
                let what = self.paint(Paint::Dim, &format!("# {what}"));
                writeln!(self.out, "  {what}\n  {command}")?;
            }
        }
        self.out.flush()
    }

    /// A plain line, after an empty one.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "\n{text}")?;
        self.out.flush()
    }

    fn code<'a>(&self, code: &'a InviteCode) -> &'a str {
        if self.show_codes { code.reveal() } else { MASK }
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let number = match paint {
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Good => 32,
            Paint::Bad => 31,
        };
        format!("\u{1b}[{number}m{text}\u{1b}[0m")
    }
}

/// One line of the table.
fn row(
    waited: &str,
    trucker: impl Display,
    code: &str,
    generation: impl Display,
    origin: &str,
    calls: &str,
    trouble: &str,
) -> String {
    let (trucker, generation) = (trucker.to_string(), generation.to_string());
    let line = format!(
        "{waited:>10}  {trucker:<13}  {code:<6}  {generation:>3}  {origin:<9}  {calls:<15}  {trouble}"
    );
    let line = line.trim_end();
    match line.char_indices().nth(WIDTH) {
        Some(_) => line.chars().take(WIDTH - 1).chain(['…']).collect(),
        None => line.to_owned(),
    }
}

/// What the API was asked for a trucker, such as `2 POST, 1 GET`.
fn calls(report: &TruckerReport) -> String {
    let counts = [(report.posts, "POST"), (report.gets, "GET")];
    let counts = counts.iter().filter(|(n, _)| *n > 0).map(|(n, method)| format!("{n} {method}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// A duration as one reads it: `12 ms`, `1.31 s`.
pub(super) fn human(duration: Duration) -> String {
    match duration.as_millis() {
        0 => format!("{:.1} ms", duration.as_secs_f64() * 1000.0),
        millis @ 1..=999 => format!("{millis} ms"),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(show_codes: bool, colour: bool) -> String {
        let mut screen = Screen { out: Vec::new(), colour, show_codes };
        let outcome =
            Outcome::Ready { code: InviteCode::new("K7Q2ZD").unwrap(), origin: "generated".to_owned() };
        let announced = Announced { key: "default/23498".parse().unwrap(), generation: 1, outcome };
        let waited = Some(Duration::from_millis(12));
        screen.announced(&announced, &Context { waited, report: None, trouble: None }).unwrap();
        screen.note("a note").unwrap();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn a_code_is_masked_unless_it_is_asked_for() {
        assert!(!printed(false, false).contains("K7Q2ZD"));
        assert!(printed(true, false).contains("K7Q2ZD"));
    }

    #[test]
    fn only_a_terminal_gets_colour() {
        assert!(!printed(false, false).contains('\u{1b}'));
        assert!(printed(false, true).contains('\u{1b}'));
    }

    #[test]
    fn durations_read_naturally() {
        for (micros, text) in [(400, "0.4 ms"), (12_300, "12 ms"), (999_900, "999 ms"), (1_314_000, "1.31 s")]
        {
            assert_eq!(human(Duration::from_micros(micros)), text);
        }
    }
}
