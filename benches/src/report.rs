//! What a measurement gives: samples, their quartiles, and rows for people and programs.

use std::time::Duration;

use serde::Serialize;

/// One result. `baseline` and `ratio` are absent where nothing comparable exists.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) baseline: Option<f64>,
    pub(crate) ratio: Option<f64>,
    /// For people only: how the samples are spread, and what was aimed at.
    #[serde(skip)]
    pub(crate) note: String,
    /// Whether something was aimed at and not met.
    #[serde(skip)]
    pub(crate) missed: bool,
}

impl Row {
    pub(crate) fn new(name: &str, unit: &'static str, samples: &Samples) -> Self {
        let name = name.to_owned();
        let note = samples.spread();
        Self {
            name,
            value: samples.median(),
            unit,
            baseline: None,
            ratio: None,
            note,
            missed: false,
        }
    }

    /// Sets the baseline and the ratio to it.
    pub(crate) fn against(mut self, baseline: &Samples) -> Self {
        let median = baseline.median();
        self.baseline = Some(median);
        self.ratio = Some(self.value / median);
        self.note = format!("{}; baseline {}", self.note, baseline.spread());
        self
    }

    /// Says what was aimed at, and whether it was met.
    pub(crate) fn aim(self, at_most: f64) -> Self {
        let reached = self.ratio.unwrap_or(self.value);
        self.judged(reached <= at_most, &format!("at most {at_most}"))
    }

    /// Says what was aimed at for the value itself, whatever the ratio is.
    pub(crate) fn aim_value(self, at_most: f64) -> Self {
        let met = self.value <= at_most;
        self.judged(met, &format!("itself at most {at_most}"))
    }

    /// As [`Row::aim`], where more is better.
    pub(crate) fn aim_at_least(self, at_least: f64) -> Self {
        let reached = self.ratio.unwrap_or(self.value);
        self.judged(reached >= at_least, &format!("at least {at_least}"))
    }

    /// The same by a condition of the caller's.
    pub(crate) fn judged(mut self, met: bool, aim: &str) -> Self {
        let word = if met { "met" } else { "MISSED" };
        self.note = format!("{}; {aim}: {word}", self.note);
        self.missed |= !met;
        self
    }
}

/// Samples of one thing, in its unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn push_micros(&mut self, time: Duration) {
        self.push(time.as_secs_f64() * 1e6);
    }

    /// The value below which `share` of the samples lie, by nearest rank.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    fn spread(&self) -> String {
        format!(
            "quartiles {:.1} to {:.1} of {}",
            self.quantile(0.25),
            self.quantile(0.75),
            self.0.len()
        )
    }
}

/// A table for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
    let mut text =
        format!("{:<36} {:>10} {:<4} {:>10} {:>6}\n", "name", "value", "unit", "baseline", "ratio");
    for row in rows {
        text.push_str(&format!(
            "{:<36} {:>10.2} {:<4} {:>10} {:>6}  {}\n",
            row.name,
            row.value,
            row.unit,
            number(row.baseline),
            number(row.ratio),
            row.note
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn quartiles_are_samples_that_were_taken() {
        let five = samples(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((five.quantile(0.25), five.median(), five.quantile(0.75)), (2.0, 3.0, 4.0));
        assert_eq!(samples(&[7.0]).median(), 7.0);
        assert!(samples(&[]).median().is_nan());
    }

    #[test]
    fn a_row_carries_exactly_the_promised_members() {
        let row = Row::new("x", "us", &samples(&[2.0])).against(&samples(&[4.0])).aim(0.6);
        assert_eq!(
            serde_json::to_value(&row).unwrap(),
            serde_json::json!({"name": "x", "value": 2.0, "unit": "us", "baseline": 4.0, "ratio": 0.5})
        );
        assert!(row.note.ends_with("at most 0.6: met"), "{}", row.note);
        assert!(!row.missed);
        let row = row.aim(0.4);
        assert!(row.note.ends_with("at most 0.4: MISSED"), "{}", row.note);
        assert!(row.aim(0.6).missed, "one that was missed stays so");
    }
}
