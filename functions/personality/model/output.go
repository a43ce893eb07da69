package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"parley.internal/shared/chattext"
)

// output is the part of a response common to all providers.
type output struct {
	text     string // all text parts
	thoughts bool   // the response has thoughts outside the text
	reason   string // finish reason; empty if missing
	detail   string // the provider's explanation of the reason
}

// Words in finish reasons. Each provider, and each server with OpenAI's protocol, has reasons of its own:
//   - OpenAI: https://platform.openai.com/docs/api-reference/chat/object
//   - Gemini: https://ai.google.dev/api/generate-content#FinishReason
//   - Mistral: error, model_length; DeepSeek: insufficient_system_resource; GLM: sensitive, network_error; vLLM: abort;
//     OpenRouter: error; Ollama: load
//
// A reason without any of the words, such as stop, tool_calls or an unknown one, says nothing against the text.
var (
	withheldWords = []string{
		"filter", "safety", "prohibited", "block", "sensitive", "refus", "recitation", "spii", "toxic", "guardrail", "moderation", "policy", "language",
	}
	failedWords = []string{
		"error", "fail", "abort", "cancel", "timeout", "timed_out", "interrupt", "malformed", "missing", "unexpected", "too_many", "no_image",
		"other", "insufficient", "load", "unavailable", "rate_limit",
	}
)

// stops lists the finish reasons of a model that ended its reply by itself.
var stops = []string{"stop", "eos", "end_turn", "complete", "stop_sequence"}

// answer returns the text for people: never empty, and without thoughts. A withheld or empty text is a refusal. The
// provider's failure, thoughts cut by a limit, and thoughts without an answer are temporary.
func (o output) answer(ctx context.Context, key string) (string, error) {
	reason := strings.ToLower(o.reason)
	is := func(word string) bool { return strings.Contains(reason, word) }
	temporary := func(why string) error {
		why = strings.TrimSpace(fmt.Sprintf("%s (finish reason %q) %s", why, o.reason, o.detail))
		return failure{key: key, err: errors.New(why)}.toError(ctx)
	}
	switch {
	case slices.ContainsFunc(withheldWords, is):
		return "", refusal(key, fmt.Sprintf("the answer was withheld: %s %s", o.reason, o.detail))
	case slices.ContainsFunc(failedWords, is):
		return "", temporary("the provider failed")
	}
	text, found, open := withoutThoughts(o.text)
	switch {
	case open:
		return "", temporary("the answer ends inside thoughts")
	case chattext.Trim(text) != "": // a text of invisible characters is no answer
		return text, nil
	case found || o.thoughts || !slices.Contains(stops, reason):
		return "", temporary("the response holds no answer")
	}
	return "", refusal(key, fmt.Sprintf("the answer is empty (finish reason %q)", o.reason))
}
