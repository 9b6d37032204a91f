//! Quiet hours: times of the week in which no job begins, such as `22:00-07:00` or
//! `Mon-Fri 09:00-17:00`, by the clock of this machine.

/// Minutes of a day.
const DAY: u32 = 24 * 60;
/// Minutes of a week.
const WEEK: u32 = 7 * DAY;
/// Names of the days as they are written.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A minute of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// 0 is Monday.
    pub(super) weekday: u8,
    /// Of the day.
    pub(super) minute: u16,
}

/// Times of the week in which jobs wait; by default there are none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct QuietHours(Vec<Span>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// Minute of the week.
    start: u32,
    /// Minutes.
    length: u32,
}

/// Why a text names no quiet hours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {wrong}")]
pub(crate) struct QuietHoursError {
    text: String,
    wrong: Wrong,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Wrong {
    #[error("needs a beginning and an end, as 22:00-07:00")]
    Form,
    #[error("{0:?} is no day (Mon, Tue, Wed, Thu, Fri, Sat or Sun)")]
    Day(String),
    #[error("{0:?} is no time of day, as 07:30")]
    Time(String),
    #[error("begins and ends at the same time; a whole day is 00:00-24:00")]
    Empty,
}

impl QuietHours {
    /// Reads each of `texts`; all of them are quiet.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, QuietHoursError> {
        let mut spans = Vec::new();
        for text in texts {
            spans.extend(parse(text).map_err(|wrong| QuietHoursError {
                text: text.clone(),
                wrong,
            })?);
        }
        Ok(Self(spans))
    }

    /// Minutes from `at` until it is no longer quiet, a whole week when it always is; `None` when
    /// it is not quiet.
    pub(super) fn active_until(&self, at: Moment) -> Option<u32> {
        let start = u32::from(at.weekday) * DAY + u32::from(at.minute);
        let mut minutes = 0;
        while minutes < WEEK {
            let now = start + minutes;
            let rest = self.0.iter().filter_map(|span| {
                let into = (now + WEEK - span.start) % WEEK;
                span.length.checked_sub(into)
            });
            match rest.max() {
                Some(rest) if rest > 0 => minutes += rest,
                _ => break,
            }
        }
        (minutes > 0).then_some(minutes.min(WEEK))
    }
}

/// The minute of the week here, by UTC where the time zone is not known.
pub(super) fn now() -> Option<Moment> {
    let now = jiff::ZonedDateTime::now();
    Some(Moment {
        weekday: u8::try_from(now.weekday().to_monday_zero_offset()).ok()?,
        minute: u16::try_from(now.hour()).ok()? * 60 + u16::try_from(now.minute()).ok()?,
    })
}

fn parse(text: &str) -> Result<Vec<Span>, Wrong> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, times) = match words.as_slice() {
        [times] => (vec![true; 7], *times),
        [days, times] => (parse_days(days)?, *times),
        _ => return Err(Wrong::Form),
    };
    let (from, to) = times.split_once('-').ok_or(Wrong::Form)?;
    let start = time(from)
        .filter(|start| *start < DAY)
        .ok_or_else(|| Wrong::Time(from.to_owned()))?;
    let end = time(to).ok_or_else(|| Wrong::Time(to.to_owned()))?;
    let length = match end.cmp(&start) {
        std::cmp::Ordering::Greater => end - start,
        std::cmp::Ordering::Less => end + DAY - start,
        std::cmp::Ordering::Equal => return Err(Wrong::Empty),
    };
    let days = (0..7).zip(days).filter(|(_, is_meant)| *is_meant);
    Ok(days
        .map(|(day, _)| Span {
            start: day * DAY + start,
            length,
        })
        .collect())
}

/// Which days `Mon-Wed,Sat` names; `Fri-Mon` goes over the end of the week.
fn parse_days(text: &str) -> Result<Vec<bool>, Wrong> {
    let mut days = vec![false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for step in 0..=(last + 7 - first) % 7 {
            if let Some(day) = days.get_mut((first + step) % 7) {
                *day = true;
            }
        }
    }
    Ok(days)
}

fn day(text: &str) -> Result<usize, Wrong> {
    DAYS.iter()
        .position(|name| name.eq_ignore_ascii_case(text))
        .ok_or_else(|| Wrong::Day(text.to_owned()))
}

/// Minute of the day of `7:30` or `07:30`, up to `24:00`.
fn time(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=2).contains(&hour.len()) || minute.len() != 2 || !is_number(hour) || !is_number(minute)
    {
        return None;
    }
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    let time = hour * 60 + minute;
    (minute < 60 && time <= DAY).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(texts: &[&str]) -> Result<QuietHours, QuietHoursError> {
        QuietHours::parse(
            &texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    /// Texts, day, hour and minute, minutes until the end.
    type Row<'a> = (&'a [&'a str], u8, (u16, u16), Option<u32>);

    #[test]
    fn minutes_until_the_end() {
        let (mon, fri, sat, sun) = (0, 4, 5, 6);
        let night = ["22:00-07:00"].as_slice();
        let work = ["Mon-Fri 09:00-17:00"].as_slice();
        let weekend = ["Sat,Sun 00:00-24:00"].as_slice();
        let table: &[Row<'_>] = &[
            (&[], mon, (12, 0), None),
            (night, mon, (21, 59), None),
            (night, mon, (22, 0), Some(9 * 60)),
            (night, mon, (6, 59), Some(1)),
            (night, mon, (7, 0), None),
            (night, sun, (23, 0), Some(8 * 60)),
            (work, mon, (9, 0), Some(8 * 60)),
            (work, fri, (16, 59), Some(1)),
            (work, fri, (17, 0), None),
            (work, sat, (10, 0), None),
            (weekend, fri, (23, 59), None),
            (weekend, sat, (0, 0), Some(2 * 24 * 60)),
            (weekend, sun, (23, 59), Some(1)),
            (weekend, mon, (0, 0), None),
            (&["Sun 22:00-07:00"], mon, (6, 0), Some(60)),
            (&["Sun 22:00-07:00"], sun, (6, 0), None),
            (&["Fri-Mon 10:00-11:00"], mon, (10, 0), Some(60)),
            (&["Fri-Mon 10:00-11:00"], 1, (10, 0), None),
            (&["mon-tue,SAT 8:00-9:00"], sat, (8, 30), Some(30)),
            (&["22:00-07:00", "07:00-09:00"], mon, (23, 0), Some(10 * 60)),
            (&["22:00-07:00", "06:00-09:00"], mon, (6, 30), Some(150)),
            (
                &["22:00-07:00", "Sat,Sun 00:00-24:00"],
                fri,
                (22, 0),
                Some((2 + 48 + 7) * 60),
            ),
            (&["00:00-24:00"], mon, (13, 37), Some(WEEK)),
            (&["00:00-12:00", "12:00-00:00"], sun, (23, 59), Some(WEEK)),
        ];
        for (texts, weekday, (hour, minute), expected) in table {
            let at = Moment {
                weekday: *weekday,
                minute: hour * 60 + minute,
            };
            let minutes = hours(texts).unwrap().active_until(at);
            assert_eq!(minutes, *expected, "{texts:?} {at:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let table = [
            ("", Wrong::Form),
            ("22:00", Wrong::Form),
            ("Mon 22:00 - 07:00", Wrong::Form),
            ("Mo 22:00-07:00", Wrong::Day("Mo".to_owned())),
            ("Mon-Fry 22:00-07:00", Wrong::Day("Fry".to_owned())),
            ("Mon, 22:00-07:00", Wrong::Day(String::new())),
            ("22:60-07:00", Wrong::Time("22:60".to_owned())),
            ("24:00-07:00", Wrong::Time("24:00".to_owned())),
            ("22:00-24:01", Wrong::Time("24:01".to_owned())),
            ("22:00-+7:00", Wrong::Time("+7:00".to_owned())),
            ("22:00-7", Wrong::Time("7".to_owned())),
            ("22:00-07:00-08:00", Wrong::Time("07:00-08:00".to_owned())),
            ("08:00-08:00", Wrong::Empty),
        ];
        for (text, wrong) in table {
            let error = hours(&["01:00-02:00", text]).unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
            assert_eq!(error.wrong, wrong, "{text}");
        }
    }

    #[test]
    fn it_is_some_minute_of_the_week() {
        let now = now().unwrap();
        assert!(now.weekday < 7 && u32::from(now.minute) < DAY);
    }
}
