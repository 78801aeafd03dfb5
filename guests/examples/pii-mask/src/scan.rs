//! Finds personal data in prose, in one pass and without a regular expression engine.
//!
//! Every scanner takes the text from a possible start on and returns how many bytes belong to the find.
//! They prefer a miss to a false alarm where a number could be anything: ten digits without separators are
//! more often a time stamp than a phone number.

/// Longest part of an e-mail address before the `@` (RFC 5321).
const LOCAL_PART_MAX: usize = 64;

/// Longest name between two dots of a domain (RFC 1035). Also keeps the search linear.
const LABEL_MAX: usize = 63;

type Scanner = fn(&[u8]) -> Option<usize>;

/// In this order: a card number may contain what looks like a phone number, never the other way round.
const NUMBERS: [(Scanner, &str); 3] = [(card, "[CARD]"), (ssn, "[SSN]"), (phone, "[PHONE]")];

/// The text with each find replaced by a placeholder, and the number of finds.
pub fn mask(text: &str) -> (String, u64) {
    let bytes = text.as_bytes();
    let mut masked = String::new();
    let (mut at, mut copied, mut found) = (0, 0, 0);
    while at < bytes.len() {
        let Some((length, placeholder)) = find(bytes, at) else {
            at += 1;
            continue;
        };
        // Starts and ends of finds are ASCII, hence never inside a character.
        masked.push_str(&text[copied..at]);
        masked.push_str(placeholder);
        found += 1;
        at += length;
        copied = at;
    }
    masked.push_str(&text[copied..]);
    (masked, found)
}

fn find(bytes: &[u8], at: usize) -> Option<(usize, &'static str)> {
    let (seen, rest) = bytes.split_at(at);
    if let Some(length) = address_may_start(seen, rest[0]).then(|| email(rest)).flatten() {
        return Some((length, "[EMAIL]"));
    }
    if !number_may_start(seen, rest[0]) {
        return None;
    }
    NUMBERS.iter().find_map(|(scanner, placeholder)| Some((scanner(rest)?, *placeholder)))
}

/// An apostrophe is part of some addresses, and a quotation mark around others.
fn address_may_start(seen: &[u8], byte: u8) -> bool {
    is_local(byte) && byte != b'\'' && !seen.last().is_some_and(|b| is_local(*b) && *b != b'\'')
}

/// Not in the middle of a word or of a longer number.
fn number_may_start(seen: &[u8], byte: u8) -> bool {
    (byte.is_ascii_digit() || byte == b'+' || byte == b'(')
        && match seen {
            [.., digit, b'-' | b'.'] => !digit.is_ascii_digit(),
            [.., before] => !before.is_ascii_alphanumeric(),
            [] => true,
        }
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+-'".contains(&byte)
}

fn email(rest: &[u8]) -> Option<usize> {
    let local = rest.iter().take(LOCAL_PART_MAX + 1).take_while(|b| is_local(**b)).count();
    if local == 0 || local > LOCAL_PART_MAX || rest.get(local) != Some(&b'@') {
        return None;
    }
    let domain = &rest[local + 1..];
    let (mut end, mut label, mut last_dot) = (0, 0, None);
    let mut good = None;
    while let Some(&byte) = domain.get(end) {
        match byte {
            b'.' if label > 0 => {
                last_dot = Some(end);
                label = 0;
            }
            b'-' if (1..LABEL_MAX).contains(&label) => label += 1,
            b if b.is_ascii_alphanumeric() && label < LABEL_MAX => {
                label += 1;
                let top = last_dot.map(|dot| &domain[dot + 1..=end]);
                if top.is_some_and(|top| top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic)) {
                    good = Some(end + 1);
                }
            }
            _ => break,
        }
        end += 1;
    }
    good.map(|length| local + 1 + length)
}

/// 13 to 19 digits that pass the Luhn check, in one run or in groups of four to six with the same
/// separator, the last group shorter.
fn card(rest: &[u8]) -> Option<usize> {
    if !matches!(rest.first(), Some(b'2'..=b'6')) {
        return None;
    }
    let mut digits = [0; 19];
    let (mut count, mut group, mut end, mut separator) = (0, 0, 0, None);
    let mut good = None;
    while let Some(&byte) = rest.get(end) {
        if byte.is_ascii_digit() {
            *digits.get_mut(count)? = byte - b'0';
            count += 1;
            group += 1;
            end += 1;
            let whole = !rest.get(end).is_some_and(u8::is_ascii_alphanumeric);
            if whole && count >= 13 && (separator.is_none() || group <= 6) && luhn(&digits[..count]) {
                good = Some(end);
            }
        } else if matches!(byte, b' ' | b'-')
            && (4..=6).contains(&group)
            && separator.is_none_or(|s| s == byte)
            && rest.get(end + 1).is_some_and(u8::is_ascii_digit)
        {
            separator = Some(byte);
            group = 0;
            end += 1;
        } else {
            break;
        }
        if good.is_some() && count == digits.len() {
            break;
        }
    }
    good
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match u32::from(digit) * (1 + place as u32 % 2) {
            doubled @ 10.. => doubled - 9,
            value => value,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// `ddd-dd-dddd`, without the numbers that are never issued.
fn ssn(rest: &[u8]) -> Option<usize> {
    let mut number = Digits { rest, at: 0 };
    let area = number.take(3)?;
    number.one_of(b"-")?;
    let group = number.take(2)?;
    number.one_of(b"-")?;
    let serial = number.take(4)?;
    let issued = area != b"000" && area != b"666" && area[0] != b'9' && group != b"00" && serial != b"0000";
    (issued && number.ends()).then_some(number.at)
}

/// An international number with `+` and 8 to 15 digits, or a North American one with separators.
fn phone(rest: &[u8]) -> Option<usize> {
    if rest.first() == Some(&b'+') { international(rest) } else { north_american(rest) }
}

fn international(rest: &[u8]) -> Option<usize> {
    let (mut end, mut digits) = (1, 0);
    let mut good = None;
    while let Some(&byte) = rest.get(end) {
        if byte.is_ascii_digit() {
            digits += 1;
            good = Some(end + 1);
        } else if digits == 0 || !b" -.()/".contains(&byte) || end > good? + 1 {
            // One separator, or two where a bracket opens or closes.
            break;
        }
        end += 1;
    }
    ((8..=15).contains(&digits) && !rest.get(good?).is_some_and(u8::is_ascii_alphanumeric)).then_some(good?)
}

fn north_american(rest: &[u8]) -> Option<usize> {
    let mut number = Digits { rest, at: 0 };
    if rest.first() == Some(&b'1') {
        number.take(1)?;
        number.one_of(b" -.")?;
    }
    let bracketed = number.one_of(b"(").is_some();
    let area = number.take(3)?;
    if bracketed {
        number.one_of(b")")?;
        number.one_of(b" -.");
    } else {
        number.one_of(b" -.")?;
    }
    let exchange = number.take(3)?;
    number.one_of(b" -.")?;
    number.take(4)?;
    // Neither part begins with 0 or 1 in the North American plan.
    (area[0] >= b'2' && exchange[0] >= b'2' && number.ends()).then_some(number.at)
}

/// Reads a number of a fixed shape from the left.
struct Digits<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Digits<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let digits = self.rest.get(self.at..self.at + count)?;
        digits.iter().all(u8::is_ascii_digit).then(|| self.at += count)?;
        Some(digits)
    }

    fn one_of(&mut self, separators: &[u8]) -> Option<()> {
        separators.contains(self.rest.get(self.at)?).then(|| self.at += 1)
    }

    /// A digit, a letter or one more group after the last digit makes it some other number.
    fn ends(&self) -> bool {
        match self.rest.get(self.at) {
            Some(b'-') => !self.rest.get(self.at + 1).is_some_and(u8::is_ascii_digit),
            Some(byte) => !byte.is_ascii_alphanumeric(),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn masks(text: &str, masked: &str) {
        let (result, found) = mask(text);
        assert_eq!(result, masked);
        assert_eq!(found, masked.matches('[').count() as u64);
    }

    #[track_caller]
    fn leaves(text: &str) {
        masks(text, text);
    }

    #[test]
    fn addresses() {
        masks("mail ann.lee+x@mail.example.org.", "mail [EMAIL].");
        masks("<o'hara@b-c.example>, b@c.io", "<[EMAIL]>, [EMAIL]");
        masks("'ann@b.example'", "'[EMAIL]'");
        masks("schreib an j\u{fc}rgen@b.example", "schreib an j\u{fc}[EMAIL]");
        masks("\u{96fb}\u{90f5}a@b.example\u{3002}", "\u{96fb}\u{90f5}[EMAIL]\u{3002}");
        masks("a@b.example. tel.:x@b.example ..y@b.example", "[EMAIL]. tel.:[EMAIL] [EMAIL]");
        leaves("a@b @home user@localhost a@b.1 a@.com @");
        leaves("price@3.50 each");
    }

    #[test]
    fn cards() {
        masks("4111 1111 1111 1111", "[CARD]");
        masks("4111-1111-1111-1111,", "[CARD],");
        masks("no. 4111111111111111!", "no. [CARD]!");
        masks("amex 3782 822463 10005 12/29", "amex [CARD] 12/29");
        masks("5555555555554444 and 6011111111111117", "[CARD] and [CARD]");
        masks("4111 1111 1111 1111 123", "[CARD] 123");
        masks("CC-4111111111111111", "CC-[CARD]");
        leaves("4111 1111 1111 1112");
        leaves("4111-1111 1111-1111");
        leaves("41111111111111111111111111");
        leaves("x4111111111111111");
        leaves("1700000000000");
        leaves("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1");
    }

    #[test]
    fn social_security_numbers() {
        masks("SSN 078-05-1120.", "SSN [SSN].");
        leaves("000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000");
        leaves("078-05-11201 078-05-1120-1 1-078-05-1120 078051120");
    }

    #[test]
    fn phone_numbers() {
        masks("call +49 30 901820 now", "call [PHONE] now");
        masks("+1 (415) 555-2671", "[PHONE]");
        masks("+14155552671,", "[PHONE],");
        masks("tel.+14155552671 (+49 30 901820)", "tel.[PHONE] ([PHONE])");
        masks("(415) 555-2671 or 415-555-2671 or 415.555.2671", "[PHONE] or [PHONE] or [PHONE]");
        masks("1-415-555-2671", "[PHONE]");
        leaves("+1 +12345 2+2 +1234567890123456");
        leaves("1700000000 2024-11-21 10:30:00 192.168.100.200 115-555-2671 415-155-2671");
        leaves("415-555-2671-99 v415-555-2671");
    }

    #[test]
    fn long_words_take_linear_time() {
        let text = "a.b-".repeat(250_000);
        assert_eq!(mask(&text), (text.clone(), 0));
    }
}
