//! From rows to a table, on the terminal and in BENCHMARKS.md, where each table stands between two
//! marker comments and everything outside them is written by hand.

use std::{fs, io, path::Path};

use crate::{Result, bench::Bench, broker::Side, stats::Samples, turns::BySide};

/// One line of a table: a figure of both brokers, and what it should be.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) unit: &'static str,
    pub(crate) sordini: Option<Samples>,
    pub(crate) kafka: Option<Samples>,
    pub(crate) wanted: Wanted,
}

/// The bar for our figure; `Ratio` is ours by Kafka's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtMost(f64),
    /// Printed to explain another row.
    Nothing,
}

impl<T> BySide<Vec<T>> {
    /// One figure of every run of both.
    pub(crate) fn row(
        &self,
        work: impl Into<String>,
        unit: &'static str,
        figure: impl Fn(&T) -> f64,
        wanted: Wanted,
    ) -> Row {
        Row {
            work: work.into(),
            unit,
            sordini: self.samples(Side::Sordini, &figure),
            kafka: self.samples(Side::Kafka, &figure),
            wanted,
        }
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let kafka = self.kafka.as_ref()?.median();
        (kafka > 0.0).then_some(self.sordini.as_ref()?.median() / kafka)
    }

    fn reached(&self) -> Option<bool> {
        match self.wanted {
            Wanted::RatioAtLeast(bar) => self.ratio().map(|ratio| ratio >= bar),
            Wanted::RatioAtMost(bar) => self.ratio().map(|ratio| ratio <= bar),
            Wanted::AtMost(bar) => self.sordini.as_ref().map(|samples| samples.median() <= bar),
            Wanted::Nothing => None,
        }
    }

    fn cells(&self) -> [String; 7] {
        let wanted = match self.wanted {
            Wanted::RatioAtLeast(bar) => format!("≥ {bar} ×"),
            Wanted::RatioAtMost(bar) => format!("≤ {bar} ×"),
            Wanted::AtMost(bar) => format!("≤ {bar}"),
            Wanted::Nothing => String::new(),
        };
        [
            self.work.clone(),
            self.unit.to_owned(),
            self.sordini.as_ref().map(spread).unwrap_or_default(),
            self.kafka.as_ref().map(spread).unwrap_or_default(),
            self.ratio()
                .map(|ratio| format!("{ratio:.2} ×"))
                .unwrap_or_default(),
            wanted,
            self.reached()
                .map(|reached| if reached { "yes" } else { "no" }.to_owned())
                .unwrap_or_default(),
        ]
    }
}

/// A headed table, with how it was taken.
pub(crate) fn section(bench: &Bench, title: &str, rows: &Measured) -> String {
    let mut section = format!("### {title}\n\n{}", table(&rows.rows));
    let turns = if bench.sides == [Side::Sordini, Side::Kafka] {
        "in turns"
    } else {
        "alone"
    };
    section += &format!("\nMedian (least to most) of {} runs, {turns}.", rows.runs);
    for note in &rows.notes {
        section += &format!(" {note}");
    }
    section + "\n"
}

/// Why is in the terminal only: it may name this machine's paths.
pub(crate) fn failed_section(title: &str) -> String {
    format!("### {title}\n\nNot measured: the last run of this row failed.\n")
}

/// What a group of rows brings home.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    /// How often each side had its turn.
    pub(crate) runs: u32,
    /// Sentences about what was done, or why a row is missing.
    pub(crate) notes: Vec<String>,
}

fn table(rows: &[Row]) -> String {
    let head = [
        "work", "unit", "sordini", "Kafka", "ratio", "wanted", "reached",
    ]
    .map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(head)
        .chain(rows.iter().map(Row::cells))
        .collect();
    let widths: [usize; 7] = std::array::from_fn(|column| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    });

    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(widths) {
            text += &format!("| {cell:width$} ");
        }
        text += "|\n";
        if number == 0 {
            for width in widths {
                text += &format!("|{}", "-".repeat(width + 2));
            }
            text += "|\n";
        }
    }
    text
}

fn spread(samples: &Samples) -> String {
    let (median, min, max) = (samples.median(), samples.min(), samples.max());
    if min == max {
        figure(median)
    } else {
        format!("{} ({} to {})", figure(median), figure(min), figure(max))
    }
}

/// Three digits that mean something.
fn figure(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// Puts a section between its markers in BENCHMARKS.md, or at the end of the file.
pub(crate) fn write(name: &str, section: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../BENCHMARKS.md");
    let page = match fs::read_to_string(&path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
        page => page?,
    };
    fs::write(&path, replace_section(&page, name, section))?;
    Ok(())
}

fn replace_section(page: &str, name: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let section = format!("{begin}\n{}\n{end}", section.trim_end());
    match (page.find(&begin), page.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{section}{}", &page[..from], &page[to + end.len()..])
        }
        _ => format!("{}\n\n{section}\n", page.trim_end())
            .trim_start()
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sordini: f64, kafka: Option<f64>, wanted: Wanted) -> Row {
        let samples = |value| Samples::new([value]);
        Row {
            work: "produce".into(),
            unit: "MB/s",
            sordini: samples(sordini),
            kafka: kafka.and_then(samples),
            wanted,
        }
    }

    #[test]
    fn a_ratio_is_judged_only_when_both_took_part() {
        assert_eq!(
            row(600.0, Some(400.0), Wanted::RatioAtLeast(1.5)).reached(),
            Some(true)
        );
        assert_eq!(
            row(599.0, Some(400.0), Wanted::RatioAtLeast(1.5)).reached(),
            Some(false)
        );
        assert_eq!(row(600.0, None, Wanted::RatioAtLeast(1.5)).reached(), None);
        assert_eq!(row(51.0, None, Wanted::AtMost(50.0)).reached(), Some(false));
    }

    #[test]
    fn a_section_replaces_its_predecessor_and_nothing_else() {
        let page = "# Benchmarks\n\n<!-- small -->\nold\n<!-- /small -->\n\nBy hand.\n";
        let replaced = replace_section(page, "small", "new");
        assert_eq!(replaced, page.replace("old", "new"));
        assert_eq!(
            replace_section(&replaced, "tail", "more"),
            replaced.trim_end().to_owned() + "\n\n<!-- tail -->\nmore\n<!-- /tail -->\n"
        );
    }

    #[test]
    fn columns_line_up() {
        let text = table(&[row(612.345, Some(405.0), Wanted::RatioAtLeast(1.5))]);
        assert_eq!(
            text,
            "| work    | unit | sordini | Kafka | ratio  | wanted  | reached |
|---------|------|---------|-------|--------|---------|---------|
| produce | MB/s | 612     | 405   | 1.51 × | ≥ 1.5 × | yes     |
"
        );
    }
}
