package model_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"parley.internal/functions/personality/model"
	"parley.internal/shared/deadletter"
)

// The documented results of a model's response, beside a text.
const (
	refused   = "refused"   // a dead letter with the reason model_refused
	temporary = "temporary" // a retryable error
)

// oddAnswer is the text in a model's response, in the form of a JSON value, with the documented result.
type oddAnswer struct{ name, text, want string }

func oddAnswers() []oddAnswer {
	all := []oddAnswer{
		{"plain", `"Hello"`, "Hello"},
		{"white space around", `" \n Hello\t"`, "Hello"},
		{"an empty text", `""`, refused},
		{"spaces", `" \n\t"`, refused},
		{"no break space", `"\u00a0"`, refused},
		{"half an emoji", `"Hello \ud83d"`, "Hello \ufffd"},
		{"the other half", `"\ude00 Hello"`, "\ufffd Hello"},
		{"halves in the wrong order", `"\ude00\ud83d"`, "\ufffd\ufffd"},
		{"an emoji in escapes", `"\ud83d\ude00"`, "\U0001f600"},
		{"invalid UTF-8", "\"a\xffb\"", "a\ufffdb"},
		{"an emoji with a selector", `"❤️"`, "❤️"},
		{"the flag of England", `"🏴󠁧󠁢󠁥󠁮󠁧󠁿"`, "🏴󠁧󠁢󠁥󠁮󠁧󠁿"},
		{"text from right to left", `"\u202eabc"`, "\u202eabc"},
		{"a template", `"{{ event.user.email }}"`, "{{ event.user.email }}"},
		{"a command", `"/ban ada"`, "/ban ada"},
		{"a mention", `"@everyone"`, "@everyone"},
		{"markup", `"<b>Hello</b>"`, "<b>Hello</b>"},
		{"thoughts", `"<think>hm</think>Hello"`, "Hello"},
		{"thoughts in capitals", `"<THINK>hm</THINK> Hello"`, "Hello"},
		{"thoughts alone", `"<think>hm</think>"`, temporary},
		{"thoughts without an end", `"<think>hm"`, temporary},
		{"the end of thoughts alone", `"hm</think>Hello"`, "Hello"},
		{"thoughts in thoughts", `"<think>a<think>b</think>c</think>Hello"`, "Hello"},
		{"thoughts with half an emoji", `"<think>\ud83d</think>Hello"`, "Hello"},
		{"a tag as code", "\"use `<think>` here\"", "use `<think>` here"},
		{"an answer in a tag", `"<answer>Hello</answer>"`, "Hello"},
		{"many tags", `"` + strings.Repeat("<think>", 1000) + `"`, temporary},
		{"many closed tags", `"` + strings.Repeat("<think></think>", 1000) + `Hello"`, "Hello"},
		{"a long text", `"` + strings.Repeat("é", 100_000) + `"`, strings.Repeat("é", 100_000)},
		{"one character", `"a"`, "a"},
		{"a full stop", `"."`, "."},
	}
	for _, r := range "\u00ad\u034f\u115f\u180e\u200b\u200d\u2060\u2800\u3164\ufe0f\ufeff\U000e0000" {
		all = append(all, oddAnswer{fmt.Sprintf("%U alone", r), `"` + string(r) + `"`, refused},
			oddAnswer{fmt.Sprintf("%U between spaces", r), `" ` + string(r) + ` "`, refused})
	}
	return all
}

func TestOddInputsInModelAnswers(t *testing.T) {
	response := map[string]string{
		"gemini": `{"candidates":[{"content":{"role":"model","parts":[{"text":%s}]},"finishReason":"STOP"}],"modelVersion":"gemini-x"}`,
		"openai": `{"id":"c","object":"chat.completion","model":"gpt-x","choices":[{"index":0,"message":{"role":"assistant","content":%s},"finish_reason":"stop"}]}`,
	}
	for _, p := range providers {
		for _, tt := range oddAnswers() {
			url, _ := serve(t, http.StatusOK, fmt.Sprintf(response[p.name], tt.text))
			reply, err := p.open(t, url).Generate(t.Context(), model.Request{Text: "hello"})
			got := reply.Text
			if dead, ok := errors.AsType[*deadletter.Error](err); ok {
				got = fmt.Sprint(dead.Reason)
				if dead.Reason == deadletter.ModelRefused {
					got = refused
				}
			} else if err != nil {
				got = temporary
			}
			if got != tt.want {
				t.Errorf("%s: %s: %+q, %v; want %+q", p.name, tt.name, got[:min(len(got), 100)], err, tt.want[:min(len(tt.want), 100)])
			}
		}
	}
}
