//! Prices of hosted models. The built-in prices are in `prices.toml`; [`Prices::with`] adds the
//! user's.
//!
//! A request is priced according to when it is sent, even if its answer continues into another
//! price period. This is an assumption: the servers do not document which time applies.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

use crate::profile::SERVERS;

/// Dollars per million tokens: (prompt, cached prompt, generated).
pub type Rates = (f64, f64, f64);

/// The price of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// The rates outside of peak times.
    pub rates: Rates,
    /// The times when the rates are higher, if any.
    pub peak: Option<Peak>,
    /// The date when the price was checked; `None` in old recordings.
    pub as_of: Option<Date>,
    /// Where the price comes from.
    pub source: String,
    /// The version of the model that the name refers to, if known.
    pub snapshot: Option<String>,
}

/// A price that is the same at all times.
impl From<Rates> for Price {
    fn from(rates: Rates) -> Self {
        Self { rates, ..Self::default() }
    }
}

impl Price {
    /// Returns whether a request sent at this time is charged at the peak price.
    #[must_use]
    pub fn is_peak(&self, at: SystemTime) -> bool {
        self.peak.as_ref().is_some_and(|peak| peak.covers(at))
    }

    /// Returns the factor by which the rates are multiplied during peak times, or `None` if there
    /// are no peak times.
    #[must_use]
    pub fn peak_factor(&self) -> Option<f64> {
        self.peak.as_ref().map(|peak| peak.factor)
    }

    /// Returns a warning if holidays are listed for some years, but not for the year of `at`, in
    /// which case costs may be overstated.
    #[must_use]
    pub fn unknown_holidays(&self, at: SystemTime) -> Option<String> {
        let year = utc(at).year();
        let peak = self.peak.as_ref().filter(|peak| !peak.holiday_years.contains(&year))?;
        let holidays = !peak.holiday_years.is_empty();
        holidays.then(|| {
            format!(
                "the prices do not list the public holidays of {year}, so the cost of requests on a holiday is overstated"
            )
        })
    }
}

/// The times when prices are higher.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peak {
    /// The factor by which prices are multiplied.
    pub factor: f64,
    /// Days of the week, from 1 (Monday) to 7 (Sunday).
    #[serde(default)]
    pub weekdays: Vec<i8>,
    /// Ranges of hours, in UTC. The end of each range is exclusive.
    #[serde(default)]
    pub hours: Vec<(i8, i8)>,
    /// Days without peak times.
    #[serde(default)]
    pub holidays: Vec<Date>,
    /// The years whose holidays are listed. In other years, no day is treated as a holiday, so
    /// costs are never understated.
    #[serde(default)]
    pub holiday_years: Vec<i16>,
}

impl Peak {
    fn covers(&self, at: SystemTime) -> bool {
        let at = utc(at);
        self.weekdays.contains(&at.weekday().to_monday_one_offset())
            && self.hours.iter().any(|(from, until)| (*from..*until).contains(&at.hour()))
            && !self.holidays.contains(&at.date())
    }
}

/// Returns the date and time in UTC. A time outside the calendar's range is treated as the Unix
/// epoch.
fn utc(at: SystemTime) -> jiff::civil::DateTime {
    Offset::UTC.to_datetime(Timestamp::try_from(at).unwrap_or_default())
}

/// The built-in prices, combined with the user's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    user: Option<Arc<File>>,
}

/// What is known about a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Its price.
    pub price: Price,
    /// Whether it accepts images; `None` if the file does not specify that.
    pub sees_images: Option<bool>,
}

impl Prices {
    /// Adds the user's file. Its entries take precedence over the built-in ones.
    #[must_use]
    pub fn with(user: File) -> Self {
        Self { user: Some(Arc::new(user)) }
    }

    /// Looks up the model with this exact name on a server of this kind
    /// ([`crate::Identity::server`]).
    #[must_use]
    pub fn find(&self, server: &str, model: &str) -> Option<Listing> {
        static BUILT_IN: LazyLock<File> = LazyLock::new(|| {
            // A test parses the file.
            File::parse("built-in prices", include_str!("prices.toml")).unwrap_or_default()
        });
        let user = self.user.as_ref().and_then(|file| file.find(server, model));
        let built_in = BUILT_IN.find(server, model);
        // A user who corrects a price may not know whether the model accepts images.
        let sees_images = built_in.as_ref().and_then(|listing| listing.sees_images);
        let user = user.map(|user| Listing { sees_images: user.sees_images.or(sees_images), ..user });
        user.or(built_in)
    }
}

/// A price file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    as_of: Date,
    #[serde(default)]
    source: String,
    peak: Option<Peak>,
    #[serde(default)]
    model: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The model's name and its aliases.
    names: Vec<String>,
    /// The kind of server; `None` for any.
    server: Option<String>,
    snapshot: Option<String>,
    prompt: f64,
    /// `None` if cached tokens cost as much as other prompt tokens.
    cached: Option<f64>,
    generated: f64,
    images: Option<bool>,
}

impl File {
    /// Parses a file. `source` is the file's name, as shown in messages.
    ///
    /// # Errors
    /// Returns a message that includes the source and says what is wrong.
    pub fn parse(source: &str, text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("{source}:{line}: {}", e.message().trim_end().replace('\n', "; "))
        })?;
        file.check().map_err(|why| format!("{source}: {why}"))?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let amount = |n: f64| n.is_finite() && (0.0..=1e6).contains(&n);
        for entry in &self.model {
            let Some(name) = entry.names.first() else {
                return Err("a model has no names; list them, as in names = [\"deepseek-flash\"]".into());
            };
            if let Some(server) = entry.server.as_ref().filter(|server| !SERVERS.contains(&server.as_str())) {
                return Err(format!(
                    "the server for {name} must be one of {}, not {server:?}",
                    SERVERS.join(", ")
                ));
            }
            let prices = [Some(entry.prompt), entry.cached, Some(entry.generated)];
            if !prices.into_iter().flatten().all(amount) {
                return Err(format!("the prices of {name} must be numbers from 0 to 1000000"));
            }
        }
        let Some(peak) = &self.peak else { return Ok(()) };
        if !amount(peak.factor) {
            return Err("peak.factor must be a number from 0 to 1000000".into());
        }
        if !peak.weekdays.iter().all(|day| (1..=7).contains(day)) {
            return Err("peak.weekdays must be numbers from 1 (Monday) to 7 (Sunday)".into());
        }
        if !peak.hours.iter().all(|(from, until)| 0 <= *from && from < until && *until <= 24) {
            return Err("peak.hours must be pairs such as [1, 4], from 0 to 24".into());
        }
        Ok(())
    }

    fn find(&self, server: &str, model: &str) -> Option<Listing> {
        let is_it = |entry: &&Entry| {
            entry.names.iter().any(|name| name == model)
                && entry.server.as_ref().is_none_or(|wanted| wanted == server)
        };
        let entry = self.model.iter().find(is_it)?;
        let price = Price {
            rates: (entry.prompt, entry.cached.unwrap_or(entry.prompt), entry.generated),
            peak: self.peak.clone(),
            as_of: Some(self.as_of),
            source: self.source.clone(),
            snapshot: entry.snapshot.clone(),
        };
        Some(Listing { price, sees_images: entry.images })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn flash() -> Price {
        Prices::default().find("deepseek", "deepseek-flash").unwrap().price
    }

    #[test]
    fn the_built_in_prices_are_valid_and_dated() {
        File::parse("prices.toml", include_str!("prices.toml")).unwrap();
        let price = flash();
        assert_eq!(price.as_of.unwrap().to_string(), "2026-11-15");
        assert_eq!(price.snapshot.as_deref(), Some("DeepSeek-V4.1-Flash-1017"));
        let years = &price.peak.as_ref().unwrap().holiday_years;
        assert!(price.peak.as_ref().unwrap().holidays.iter().all(|day| years.contains(&day.year())));
        let find = |server, model| Prices::default().find(server, model);
        assert_eq!(find("deepseek", "deepseek-v4-flash").unwrap().price, price, "an alias");
        assert_eq!(find("deepseek", "deepseek-v4-pro").unwrap().price.rates, (0.66, 0.022, 1.98));
        assert_eq!(find("deepseek", "deepseek-v4-pro").unwrap().sees_images, Some(false));
        assert_eq!(find("vllm", "deepseek-flash"), None, "the price of another server is unknown");
    }

    #[test]
    fn peak_times_are_hours_of_working_days_in_china() {
        for (time, peak) in [
            ("2026-11-16T00:59:59Z", false), // a Monday
            ("2026-11-16T01:00:00Z", true),
            ("2026-11-16T03:59:59.999Z", true),
            ("2026-11-16T04:00:00Z", false),
            ("2026-11-16T05:59:59Z", false),
            ("2026-11-16T06:00:00Z", true),
            ("2026-11-20T09:59:59Z", true), // a Friday
            ("2026-11-20T10:00:00Z", false),
            ("2026-11-21T02:00:00Z", false), // a Saturday
            ("2026-11-22T07:00:00Z", false), // a Sunday
            ("2026-10-07T02:00:00Z", false), // a holiday, on a Wednesday
            ("2026-10-08T02:00:00Z", true),
            ("2026-10-10T02:00:00Z", false), // a working Saturday
            ("2027-02-08T02:00:00Z", false), // a statutory holiday, on a Monday
            ("2028-10-02T02:00:00Z", true),  // a year whose holidays are unknown, on a Monday
        ] {
            assert_eq!(flash().is_peak(at(time)), peak, "{time}");
        }
        assert!(!Price::from((1.0, 1.0, 1.0)).is_peak(at("2026-11-16T01:00:00Z")));
    }

    #[test]
    fn the_user_is_told_once_the_holidays_are_unknown() {
        assert_eq!(flash().unknown_holidays(at("2027-12-31T23:59:59Z")), None);
        let told = flash().unknown_holidays(at("2028-01-01T00:00:00Z")).unwrap();
        assert!(told.contains("holidays of 2028"), "{told}");
        assert_eq!(Price::from((1.0, 1.0, 1.0)).unknown_holidays(at("2028-01-01T00:00:00Z")), None);
    }

    #[test]
    fn the_users_file_takes_precedence() {
        let text =
            "as_of = '2027-01-02'\n[[model]]\nnames = ['m', 'deepseek-flash']\nprompt = 1\ngenerated = 2\n";
        let prices = Prices::with(File::parse("prices.toml", text).unwrap());
        let price = prices.find("vllm", "m").unwrap().price;
        assert_eq!((price.rates, price.peak_factor()), ((1.0, 1.0, 2.0), None));
        assert_eq!(price.as_of.unwrap().to_string(), "2027-01-02");
        assert_eq!(prices.find("deepseek", "deepseek-flash").unwrap().price, price);
        assert!(prices.find("deepseek", "deepseek-v4-pro").is_some(), "the built-in prices still apply");
    }

    #[test]
    fn an_invalid_file_is_refused_with_the_reason() {
        let model = "as_of = '2027-01-02'\n[[model]]\nnames = ['m']\nprompt = 1\ngenerated = 2\n";
        let refusal = |text: &str| File::parse("p.toml", text).unwrap_err();
        for (text, why) in [
            ("source = 'x'\n".to_owned(), "as_of"),
            ("as_of = 'today'\n".to_owned(), "p.toml:1: "),
            (format!("{model}currency = 'CNY'\n"), "p.toml:6: unknown field `currency`"),
            (model.replace("prompt = 1", "prompt = -1"), "the prices of m must be"),
            (model.replace("prompt = 1", "prompt = nan"), "the prices of m must be"),
            (model.replace("['m']", "[]"), "a model has no names"),
            (format!("{model}server = 'olama'\n"), "the server for m must be one of ollama, "),
            (format!("{model}[peak]\nfactor = 2.0\nhours = [[4, 1]]\n"), "peak.hours"),
            (format!("{model}[peak]\nfactor = 2.0\nweekdays = [0]\n"), "peak.weekdays"),
            (format!("{model}[peak]\nfactor = inf\n"), "peak.factor"),
        ] {
            let refused = refusal(&text);
            assert!(refused.contains(why), "{refused}");
        }
    }
}
