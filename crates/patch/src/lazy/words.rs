//! The vocabulary of placeholders.

use super::Claim;

/// Words for parts of programs. A comment that consists of these words and [`REST`] is about code.
const CODE: &str = "code codes implementation implementations method methods function functions func funcs class classes \
    import imports logic module modules component components body bodies file script program source snippet \
    subroutine subroutines procedure procedures boilerplate codebase constructor constructors template templates markup html jsx css styles";

/// Words for parts that both code and data can have. They count only in combination with an
/// ellipsis, `here` or a word from [`STATE`].
const PARTS: &str = "content contents test tests case cases field fields property properties prop props attribute attributes \
    variable variables constant constants declaration declarations definition definitions statement statements line lines \
    section sections style rule rules route routes endpoint endpoints handler handlers helper \
    helpers hook hooks struct structs interface interfaces type types query queries schema config configuration setting settings \
    setup initialization initialisation part parts block blocks document page stuff operations branches utilities utils \
    state states parameters args arguments entries items options dependencies exports members getters setters validation \
    processing handling rendering render return loop header headers footer table model models view views controller \
    controllers service services key keys value values row rows column columns list array object data paragraph paragraphs text \
    readme scripts effects effect callback callbacks event events listeners enum enums variant variants trait traits impl \
    overload overloads assertions checks steps step";

/// Words for everything that the patch does not show.
const REST: &str = "rest remainder remaining else others other everything";

/// Words that refer to the existing code.
const OLD: &str = "existing previous prior original old current earlier already";

/// Words that mean that code is unchanged.
const STATE: &str = "unchanged unmodified untouched intact identical unaltered";

/// Words that mean that code is omitted.
const OMITTED: &str =
    "omitted elided truncated abbreviated snip snipped skipped trimmed collapsed hidden brevity shortened";

/// Words that mean that code must stay.
const KEEP: &str = "keep keeps kept leave leaves left retain retained preserve preserved maintain maintained stay stays remain remains \
    continue continues";

const HERE: &str = "here goes go above below follow follows following";

/// Words with no meaning of their own.
const FILLER: &str = "the a an of for in and or as is are be to this that these those it its all any your my our with from same before \
    after now no not need needed needs change changes changed change modification modifications modified more some etc so on just \
    only and/or should would will exactly was were been has have where does do s at up end start beginning top bottom between \
    this: note don't doesn't didn't any without further additional necessary required edit edits update updates updated \
    simplicity clarity reason reasons space they them";

/// Whole comments in other languages that say only "omitted" or "as above".
const SIGNS: &str = "省略 中略 後略 以下略 略 同上 以下同じ 同じ 不变 不變 略去 생략 이하 생략 동일";

/// Words that begin an instruction to insert code here.
const INSERT: &str = "insert put place paste include copy add restore";

/// Lowercase phrases in other languages: Chinese, Japanese, Korean, Spanish, Portuguese, Italian,
/// French, German, Dutch, Polish, Turkish, Russian, Ukrainian, Vietnamese, Indonesian, Arabic,
/// Hindi. A comment of at most [`MAX_FOREIGN_WORDS`] words that contains one of them is a
/// placeholder.
const PHRASES: &str = "\
    其余代码|其他代码|其它代码|剩余代码|余下代码|剩下的代码|其余的代码|其他的代码|其余部分|其他部分|剩余部分|其余方法|其他方法|其余函数|其他函数|其余内容|其他内容|剩余内容| \
    现有代码|原有代码|已有代码|原来的代码|之前的代码|原始代码|现有的代码|原有逻辑|现有逻辑|现有方法|原有方法|现有实现|原有实现|代码不变|代码保持不变|保持不变|保持原样| \
    代码省略|省略代码|此处省略|省略部分|以下省略|代码相同|与之前相同|和之前一样|無變更|其餘程式碼|其餘代碼|現有程式碼|現有代碼|原有程式碼|其他程式碼|保持原狀|代碼不變|\
    残りのコード|既存のコード|既存コード|元のコード|以前のコード|他のコード|残りの部分|残りの実装|既存の実装|既存のメソッド|他のメソッド|残りのメソッド|残りは変更なし| \
    残りは同じ|変更なし|以下省略|以下同様|コードは省略|コード省略|変更ありません|残りはそのまま|\
    나머지 코드|기존 코드|이전 코드|다른 코드|나머지 부분|나머지 메서드|기존 메서드|기존 로직|기존 구현|변경 없음|이전과 동일|코드 생략|그대로 유지|\
    resto del código|resto del codigo|código existente|codigo existente|sin cambios| \
    resto del archivo|código anterior|resto do código|restante do código|resto do codigo| \
    código restante|sem alterações|sem mudanças|código permanece|resto del codice|codice esistente| \
    codice rimane|codice invariato|resto del file|senza modifiche|reste du code|code existant| \
    reste inchangé|code inchangé|reste du fichier|sans changement|code précédent|\
    rest des codes|restlicher code|restliche code|übriger code|bestehender code|vorhandener code| \
    bisheriger code|bleibt unverändert|bleibt gleich|code unverändert|rest der datei|rest bleibt| \
    rest unverändert|unverändert|rest van de code|bestaande code|ongewijzigd|reszta kodu| \
    istniejący kod|bez zmian|pozostały kod|kodun geri kalanı|mevcut kod|aynı kalacak|değişmedi|\
    остальной код|остальная часть|существующий код|без изменений|оставшийся код|предыдущий код| \
    остальные методы|остается без|остаётся без|решта коду|існуючий код|наявний код|без змін| \
    код не изменился|код опущен|\
    phần còn lại|giữ nguyên|mã hiện có|code hiện tại|sisa kode|kode yang ada|kode lainnya| \
    tidak berubah|بقية الكود|باقي الكود|الكود الموجود|الكود الحالي|बाकी कोड|मौजूदा कोड";

/// Maximum number of words in a comment in another language. In scripts without spaces, four
/// characters count as a word.
const MAX_FOREIGN_WORDS: usize = 9;

/// Maximum number of unknown words in a comment that begins and ends with dots.
const MAX_UNKNOWN_WORDS: usize = 4;

pub(super) fn has_dots(text: &str) -> bool {
    text.contains("...") || text.contains('…') || text.contains(". . .")
}

/// Returns whether text outside a comment reads like a placeholder. Such text must be more explicit
/// than a comment, since it has no comment marker.
pub(super) fn is_plain(text: &str) -> bool {
    let words: Vec<String> = words(text);
    let tag = text.strip_prefix(['<', '[']).and_then(|text| text.strip_suffix(['>', ']'])).map(str::trim);
    let bare = |text: &str| text.contains(' ') && text.chars().all(|c| c.is_alphabetic() || c == ' ');
    has_dots(text)
        || tag.is_some_and(bare) && words.iter().any(|word| is(word, OLD) || is(word, REST))
        || words.len() > 2 && words.iter().any(|word| is(word, STATE) || is(word, OMITTED) || word == "same")
}

fn is(word: &str, table: &str) -> bool {
    table.split_whitespace().any(|entry| entry == word)
}

fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '\'' | '`')))
        .map(|word| word.trim_matches(['\'', '`', '_']).to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

/// If a comment is a placeholder, returns what it claims about the code.
pub(super) fn classify(text: &str) -> Option<Claim> {
    let dots = has_dots(text);
    let words = words(text);
    if words.is_empty() {
        let bare = text.trim_matches(|c: char| c.is_whitespace() || "[](){}<>".contains(c));
        return matches!(bare, "..." | "…" | "....").then_some(Claim::Omitted);
    }
    let is_code = ["=>", "->", " = ", "\"", ";", "::"].iter().any(|code| text.contains(code));
    if is_code || words.len() > 20 || text.contains("TODO") || text.contains("FIXME") || text.contains('?') {
        return None;
    }
    foreign(text, &words).or_else(|| english(text, &words, dots))
}

/// Like [`classify`], but for comments that are placeholders only if code is removed. `lost`
/// returns whether a word occurs only in the removed code.
pub(super) fn classify_if_removed(text: &str, lost: impl Fn(&str) -> bool) -> Option<Claim> {
    let words = words(text);
    if words.is_empty() || words.len() > 20 || text.contains('?') || text.contains("TODO") {
        return None;
    }
    let any = |table: &str| words.iter().any(|word| is(word, table));
    if matches!(words.join(" ").as_str(), "as above" | "same as above" | "as before") {
        return Some(Claim::Existing);
    }
    let stays = [STATE, KEEP, OMITTED, "rest remainder remaining existing same"].into_iter().any(any)
        || say(&words, "no changes|no change|not changed|as before|as above");
    let tables = [CODE, PARTS, REST, OLD, STATE, OMITTED, KEEP, HERE, FILLER, INSERT];
    let mut unknown = words.iter().filter(|word| !tables.iter().any(|table| is(word, table))).peekable();
    let names = unknown.peek().is_some() && unknown.all(|word| lost(word));
    (stays && names).then_some(Claim::Existing)
}

fn foreign(text: &str, words: &[String]) -> Option<Claim> {
    let lower = text.to_lowercase();
    let wide = lower.chars().filter(|c| *c >= '\u{2e80}').count();
    let length = words.iter().filter(|word| word.chars().all(|c| c < '\u{2e80}')).count() + wide.div_ceil(4);
    let phrase = || PHRASES.split('|').any(|phrase| lower.contains(phrase.trim()));
    let sign = words.iter().all(|word| is(word, SIGNS));
    (sign || length <= MAX_FOREIGN_WORDS && phrase()).then_some(Claim::Existing)
}

/// Phrases that mean that nothing changes.
const NO_CHANGE: &str = "no change|no other changes|no other change|no further changes|no changes|not changed|\
    no modifications|not modified|no changes needed|not need to change|doesn't change|don't change";

/// Returns whether the words contain one of these phrases.
fn say(words: &[String], phrases: &str) -> bool {
    let text = format!(" {} ", words.join(" "));
    phrases.split('|').any(|phrase| text.contains(&format!(" {phrase} ")))
}

fn english(text: &str, words: &[String], dots: bool) -> Option<Claim> {
    let any = |table: &str| words.iter().any(|word| is(word, table));
    let has = |phrases: &str| say(words, phrases);
    let (code, part) = (any(CODE), any(PARTS));
    let rest = any("rest remainder remaining") || has("everything else");
    let other = any("other others more additional");
    let old = any(OLD);
    let same = has("same as before|same as original|same as existing|same as previous")
        || any("same")
            && (any("remain remains stay stays keep keeps")
                || (any("rest remainder") || code) && any("is are")
                || has("same here"));
    let as_is = has("as is|as before|as it was|as they were|as they are|as it is");
    let no_change = has(NO_CHANGE);
    let state = any(STATE) || same || as_is || no_change;
    let omitted = any(OMITTED);
    let keep = any("keep keeps kept leave leaves retain preserve maintain");
    let here = any(HERE);
    let tables = [CODE, PARTS, REST, OLD, STATE, OMITTED, KEEP, HERE, FILLER];
    // In a comment with dots, a number is a count of omitted lines.
    let number = |word: &str| dots && word.chars().all(|c| c.is_ascii_digit());
    let known = |word: &str| number(word) || tables.iter().any(|table| is(word, table));
    let unknown: Vec<&String> = words.iter().filter(|word| !known(word)).collect();
    let heading = text.trim_end().ends_with(':');

    let (lead, trail) = (starts_with_dots(text), ends_with_dots(text));
    let named = |word: &&String| is_identifier(text, word);
    let closed = unknown.is_empty();
    // Dots on both sides mark a placeholder. Without them, a sentence about data may merely look
    // like a placeholder.
    let about =
        rest || old && (code || part) || any(STATE) || same || omitted && code || other && (code || part);
    if !closed {
        let framed =
            lead && trail && (about || state || omitted || any(KEEP)) && unknown.len() <= MAX_UNKNOWN_WORDS;
        let insert = old
            && (code || part)
            && unknown.len() == 1
            && words.first().is_some_and(|word| is(word, INSERT))
            && words.last().is_some_and(|word| word == "here");
        let named = unknown.len() <= 2
            && unknown.iter().all(named)
            && (code || part)
            && (rest || old || state)
            && (dots || state);
        let stays = any(STATE) || any("same identical") && any("remain remains stay stays");
        let noun = |word: &String| is(word, CODE) || is(word, PARTS);
        let before = words.windows(2).any(|pair| pair[0] == *unknown[0] && noun(&pair[1]));
        let one = unknown.len() == 1 && before && stays && (code && (rest || old) || other);
        return (framed || insert || named || one).then_some(if rest || old || state {
            Claim::Existing
        } else {
            Claim::Omitted
        });
    }
    if heading && !dots {
        return None;
    }
    let shown = dots || here;
    let existing = state
        && (code || part || rest || old || other || dots || !keep && (any(STATE) || same || no_change))
        || old && (code && (shown || keep || any("existing previous original")) || part && shown)
        || keep && (rest && (code || words.len() <= 4) || old && (code || part && dots))
        || keep && has("everything else") && (state || code);
    let left_out = omitted && (code || part && shown || rest || dots || any("snip snipped brevity"))
        || any("rest remainder") && (code || shown)
        || any("remaining") && (any("code implementation logic file body") || (code || part) && shown)
        || has("everything else") && shown
        || other && (code && shown || part && (lead || here)) && (lead || !any("additional more"))
        || dots && (code || part) && (lead || here)
        || lead && any("etc more");
    if existing { Some(Claim::Existing) } else { left_out.then_some(Claim::Omitted) }
}

fn starts_with_dots(text: &str) -> bool {
    let text = text.trim_start_matches([' ', '[', '(', '<', '{', '/', '*']);
    text.starts_with("...") || text.starts_with('…') || text.starts_with("..")
}

fn ends_with_dots(text: &str) -> bool {
    let text = text.trim_end_matches([' ', ']', ')', '>', '}', '/', '*']);
    text.ends_with("...") || text.ends_with('…')
}

/// Returns whether the word is written like an identifier in the text.
fn is_identifier(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|written| written.to_lowercase() == *word)
        .any(|written| {
            written.contains('_')
                || written.chars().skip(1).any(char::is_uppercase)
                || text.contains(&format!("{written}("))
                || text.contains(&format!("`{written}"))
        })
}
