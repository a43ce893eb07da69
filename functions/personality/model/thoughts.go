package model

import (
	"regexp"
	"strings"
	"unicode"
)

// Models write thoughts into their text in one of these forms. Most servers separate the thoughts from the text only if
// they are configured for the model.
//
//   - tags: <think>…</think>, with many names, attributes and namespaces, <|begin_of_thought|>…<|end_of_thought|>,
//     <|START_THINKING|>…<|END_THINKING|>, ◁think▷…◁/think▷, [THINK]…[/THINK], <|channel>thought…<channel|> and
//     <unused94>…<unused95>
//   - a closing tag alone, because the opening tag is part of the prompt's template
//   - channels: <|channel|>analysis<|message|>…<|end|>, or, after the removal of the special tokens, analysis…assistantfinal
var (
	thoughtTag = regexp.MustCompile(`(?i)(?:<\|?|◁)[ \t]*/?[ \t]*(?:[a-z0-9]+:)?` +
		`(?:[a-z]+[_-])*(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|analysis|scratchpad|monologue|deliberation|antthinking|cot)(?:[_-][a-z]+)*` +
		`(?:[ \t][^<>\n]*)?/?\|?(?:>|▷|\n|$)` +
		`|(?-i:\[/?THINK\])|<\|channel>(?:thought|analysis)\b|<channel\|>|<unused9[45]>`)

	channelHeader   = regexp.MustCompile(`<\|channel\|>\s*([a-zA-Z]+)[^<]*(?:<\|constrain\|>[^<]*)?(?:<\|message\|>|$)`)
	channelEnd      = regexp.MustCompile(`<\|(?:end|return|call|start|channel)\|>`)
	plainChannel    = regexp.MustCompile(`(?s)^analysis(?:[A-Z]|.*assistantfinal)`)
	plainFinal      = "assistantfinal"
	answerTag       = regexp.MustCompile(`(?i)<\|?(/|begin_of_|end_of_|start_|end_)?(?:answer|response|final|final_answer|output|solution|box)\|?>`)
	tagDelimiters   = "<>|◁▷[] \t\n"
	unmatchedClosed = map[string]bool{"channel": true, "unused95": true} // closing tags without a slash
)

// withoutThoughts returns a model's text without the thoughts in it. found reports whether the text has thoughts, open
// whether the text ends inside them. A tag in a code span or code block is a mention of the tag, and stays.
func withoutThoughts(text string) (answer string, found, open bool) {
	text, found, open = finalChannel(text)
	if open {
		return "", true, true
	}
	var said []byte
	var inside []string // the names of the open tags, outermost first
	pos := 0
	for _, at := range thoughtTag.FindAllStringIndex(text, -1) {
		if len(inside) == 0 {
			end := codeBefore(text, pos, at[0])
			if at[0] < end { // the tag is in the code
				said, pos = append(said, text[pos:end]...), end
				continue
			}
			if at[0] < pos {
				continue
			}
			said = append(said, text[pos:at[0]]...)
		} else if quotedAsCode(text, at) {
			continue
		}
		found = true
		name, closing, empty := parseTag(text[at[0]:at[1]])
		switch {
		case empty:
		case !closing:
			inside = append(inside, name)
		case len(inside) == 0:
			said = said[:0] // all text so far was thoughts
		default:
			inside = closeTag(inside, name)
		}
		pos = at[1]
		if len(inside) == 0 && (len(said) == 0 || unicode.IsSpace(rune(said[len(said)-1]))) {
			pos = len(text) - len(strings.TrimLeftFunc(text[pos:], unicode.IsSpace))
		}
	}
	if len(inside) > 0 {
		return "", true, true
	}
	said = append(said, text[pos:]...)
	return withoutAnswerTag(strings.TrimSpace(string(said))), found, false
}

// closeTag removes the last open tag with this name and the tags inside it, or else the innermost tag.
func closeTag(inside []string, name string) []string {
	for i := len(inside) - 1; i >= 0; i-- {
		if inside[i] == name {
			return inside[:i]
		}
	}
	return inside[:len(inside)-1]
}

// parseTag reads a match of thoughtTag. An empty tag, such as <think/>, has no content.
func parseTag(tag string) (name string, closing, empty bool) {
	name = strings.Trim(strings.ToLower(tag), tagDelimiters)
	closing, empty = strings.HasPrefix(name, "/"), strings.HasSuffix(name, "/")
	name = strings.Trim(name, "/ \t")
	name, _, _ = strings.Cut(name, " ")
	name, _, _ = strings.Cut(name, "\t")
	if _, after, ok := strings.Cut(name, ":"); ok {
		name = after
	}
	for _, prefix := range []string{"end_of_", "end_"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest, true, empty
		}
	}
	for _, prefix := range []string{"begin_of_", "begin_", "start_"} {
		name = strings.TrimPrefix(name, prefix)
	}
	return name, closing || unmatchedClosed[name], empty
}

// codeBefore returns the end of the last code span or block that begins in text[pos:tag], or pos without one.
func codeBefore(text string, pos, tag int) (end int) {
	end = pos
	for pos < tag {
		i := strings.IndexByte(text[pos:tag], '`')
		if i < 0 {
			break
		}
		pos += i
		run := backquotes(text[pos:])
		within := text[pos+run:]
		if run < 3 { // a span ends on its line
			within, _, _ = strings.Cut(within, "\n")
		}
		length := codeLength(within, run)
		pos += run
		if length >= 0 {
			pos += length
			end = pos
		}
	}
	return end
}

// codeLength returns the length of the code at the beginning of text, with the run of backquotes that closes it, or -1
// if no such run follows.
func codeLength(text string, run int) int {
	for i := 0; i < len(text); {
		if text[i] != '`' {
			next := strings.IndexByte(text[i:], '`')
			if next < 0 {
				return -1
			}
			i += next
		}
		n := backquotes(text[i:])
		i += n
		if n == run || run >= 3 && n > run {
			return i
		}
	}
	return -1
}

// backquotes returns the number of backquotes at the beginning of a text.
func backquotes(text string) int { return len(text) - len(strings.TrimLeft(text, "`")) }

// quotedAsCode reports whether a code span holds exactly the tag. Inside thoughts no other code is looked for, since a
// single backquote there would hide the end of the thoughts.
func quotedAsCode(text string, tag []int) bool {
	return tag[0] > 0 && text[tag[0]-1] == '`' && tag[1] < len(text) && text[tag[1]] == '`'
}

// finalChannel returns the text of the channel final, if a text consists of channels. open means that this channel is
// missing.
func finalChannel(text string) (final string, found, open bool) {
	if headers := channelHeader.FindAllStringSubmatchIndex(text, -1); headers != nil {
		for _, h := range headers {
			if !strings.EqualFold(text[h[2]:h[3]], "final") {
				continue
			}
			part := text[h[1]:]
			if end := channelEnd.FindStringIndex(part); end != nil {
				part = part[:end[0]]
			}
			final += part
			found = true
		}
		return final, true, !found
	}
	if plainChannel.MatchString(text) {
		i := strings.LastIndex(text, plainFinal)
		if i < 0 {
			return "", true, true
		}
		return text[i+len(plainFinal):], true, false
	}
	return text, false, false
}

// withoutAnswerTag removes a tag around the whole answer, such as <answer>…</answer>.
func withoutAnswerTag(text string) string {
	tags := answerTag.FindAllStringSubmatchIndex(text, -1)
	if tags == nil || tags[0][0] != 0 || closesAnswer(text, tags[0]) {
		return text
	}
	if last := tags[len(tags)-1]; closesAnswer(text, last) {
		text = text[:last[0]] + text[last[1]:]
	}
	return strings.TrimSpace(text[tags[0][1]:])
}

// closesAnswer reports whether a match of answerTag is a closing tag.
func closesAnswer(text string, tag []int) bool {
	if tag[2] < 0 {
		return false
	}
	kind := strings.ToLower(text[tag[2]:tag[3]])
	return kind == "/" || strings.HasPrefix(kind, "end_")
}
