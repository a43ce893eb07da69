package model

import (
	"fmt"
	"strings"
	"testing"
)

func TestThoughtsAreRemoved(t *testing.T) {
	for in, want := range map[string]string{
		"Hello Ada":                                    "Hello Ada",
		"":                                             "",
		"1 < 2 and 3 > 2":                              "1 < 2 and 3 > 2",
		"I think <b>so</b>":                            "I think <b>so</b>",
		"<think>hm</think>Hello":                       "Hello",
		"<think>\n\n</think>\n\nHello":                 "Hello",
		"<thinking>hm</thinking> Hello":                "Hello",
		"<THINK>hm</Think>Hello":                       "Hello",
		"< think >hm</ think >Hello":                   "Hello",
		"<think type=\"deep\">hm</think>Hello":         "Hello",
		"<thought>hm</thought>Hello":                   "Hello",
		"<thoughts>hm</thoughts>Hello":                 "Hello",
		"<reasoning>hm</reasoning>Hello":               "Hello",
		"<reason>hm</reason>Hello":                     "Hello",
		"<reflection>hm</reflection>Hello":             "Hello",
		"<analysis>hm</analysis>Hello":                 "Hello",
		"<scratchpad>hm</scratchpad>Hello":             "Hello",
		"<inner_monologue>hm</inner_monologue>Hello":   "Hello",
		"<chain-of-thought>hm</chain-of-thought>Hello": "Hello",
		"<x:thinking>hm</x:thinking>Hello":             "Hello",
		"<seed:think>a<seed:cot_budget_reflect>9</seed:cot_budget_reflect>b</seed:think>Hello": "Hello",
		"◁think▷hm◁/think▷Hello":       "Hello",
		"[THINK]hm[/THINK]Hello":       "Hello",
		"[think] about it":             "[think] about it",
		"<|thinking|>hm<|/thinking|>A": "A",
		"<|begin_of_thought|>hm<|end_of_thought|>\n<|begin_of_solution|>Hello<|end_of_solution|>":             "Hello",
		"<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Hello<|END_RESPONSE|>":                         "Hello",
		"<|channel>thought\nhm<channel|>Hello":                                                                "Hello",
		"<unused94>thought\nhm<unused95>Hello":                                                                "Hello",
		"<think>hm</think><answer>Hello</answer>":                                                             "Hello",
		"<think>hm</think>\n<response>\nHello":                                                                "Hello",
		"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hello<|return|>": "Hello",
		"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=f <|constrain|>json<|message|>{}<|call|><|channel|>final<|message|>Hello": "Hello",
		"<|channel|>final<|message|>Hello":            "Hello",
		"analysisThe user greets.assistantfinalHello": "Hello",
		"analysis of the game":                        "analysis of the game",

		// where they are
		"Hello <think>hm</think> Ada":                         "Hello Ada",
		"Hello<think>hm</think>":                              "Hello",
		"<think>a</think>Hello<think>b</think> Ada":           "Hello Ada",
		"One.\n\n<think>hm</think>\n\nTwo.":                   "One.\n\nTwo.",
		"<think/>Hello":                                       "Hello",
		"<think>a<think>b</think>c</think>Hello":              "Hello",
		"<thinking>a<reflection>b</reflection>c</thinking>Hi": "Hi",
		"<think>what is an <analysis> tag?</think>Hello":      "Hello",
		"<think>a</thinking>Hello":                            "Hello",
		"<think\nhm</think>Hello":                             "Hello",
		"hm, let me see\n</think>\n\nHello":                   "Hello",
		"a</think>b</think>Hello":                             "Hello",
		"<think>`</think>` ends it</think>Hello":              "Hello",
		"<think>a stray ` here</think>The answer is `x`.":     "The answer is `x`.",
		"<think>hm</think>":                                   "",
		"hm</think>":                                          "",

		// mentions
		"The tag `<think>` starts it.":                        "The tag `<think>` starts it.",
		"`<think>`":                                           "`<think>`",
		"Write `<think>hm</think>` and ``</think>``.":         "Write `<think>hm</think>` and ``</think>``.",
		"```xml\n<think>\nhm\n</think>\n```\nSo.":             "```xml\n<think>\nhm\n</think>\n```\nSo.",
		"<think>`<think>`?</think>It is `<think>`.":           "It is `<think>`.",
		"`a` <think>hm</think> `<think>`":                     "`a` `<think>`",
		"it`s\n<think>hm</think>it`s":                         "it`s\nit`s",
		"the tag is `</think>`, I guess</think>It is `</a>`.": "It is `</a>`.",
	} {
		got, _, open := withoutThoughts(in)
		if got != want || open {
			t.Errorf("%q gives %q, open %v; want %q", in, got, open, want)
		}
	}
}

func TestUnclosedThoughtsLeaveNoAnswer(t *testing.T) {
	for _, in := range []string{
		"<think>hm", "<think>", "<think", "Sure! <think>hm", "<think>a<think>b</think>c", "<think>a</think>Hello<think>b",
		"<think>hm</thi", "<thinking>`</thinking>`", "[THINK]hm", "◁think▷hm", "<|START_THINKING|>hm", "<|channel>thought\nhm",
		"<|channel|>analysis<|message|>hm", "<|channel|>analysis<|message|>hm<|end|><|start|>assistant", "<|channel|>analysis", "analysisThe user greets",
	} {
		if got, found, open := withoutThoughts(in); got != "" || !found || !open {
			t.Errorf("%q gives %q, found %v, open %v; want no text", in, got, found, open)
		}
	}
}

// BenchmarkWithoutThoughts shows that the time per byte does not depend on the length of the text: a text from a provider
// may be long.
func BenchmarkWithoutThoughts(b *testing.B) {
	for _, part := range []string{"<think>", "</think>", "`a` <think>x</think>", "`<think>", "``` <think>", "` `` ```", "<|channel|>", "<answer>", "<", "\u25c1think"} {
		for _, size := range []int{1 << 12, 1 << 16} {
			b.Run(fmt.Sprintf("%q/%d", part, size), func(b *testing.B) {
				text := strings.Repeat(part, size/len(part))
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					withoutThoughts(text)
				}
			})
		}
	}
}

func FuzzWithoutThoughts(f *testing.F) {
	for _, seed := range []string{"<think>a</think>b", "`<think>`", "```\n</think>", "<|channel|>final<|message|>x", "<answer></answer>", "<think/>", "\u25c1think\u25b7"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, found, open := withoutThoughts(text)
		if len(got) > len(text) || open && (got != "" || !found) {
			t.Errorf("%q gives %q, %v, %v", text, got, found, open)
		}
		if !found && withoutAnswerTag(strings.TrimSpace(text)) != got {
			t.Errorf("%q without thoughts gives %q", text, got)
		}
	})
}
