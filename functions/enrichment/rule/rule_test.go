package rule

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

var at = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func never(string) bool { return false }

// says returns a rule with a text answer.
func says(id, when, text string) store.Rule {
	return store.Rule{ID: id, Enabled: true, When: when, Candidates: []store.RuleCandidate{{Text: text}}}
}

// compileAll compiles valid rules.
func compileAll(t testing.TB, rules ...store.Rule) *Set {
	t.Helper()
	s, failures := Compile(rules, nil)
	if len(failures) > 0 {
		t.Fatalf("failures = %v", failures)
	}
	return s
}

func number(f float64) *float64 { return &f }

// chat returns Ada's message with most members set.
func chat(text string) *event.Event {
	return &event.Event{
		V: event.Version, Source: "ingress.twitch", CorrelationID: "c1", Type: event.TypeChatMessage, Channel: "lobby", UserID: "twitch:1",
		Payload:  []byte(`{"amount":5,"who":{"name":"Bo"},"list":[1,2]}`),
		Metadata: []byte(`{"id":"m1"}`),
		User:     &event.User{ID: "twitch:1", DisplayName: "Ada", Roles: []string{"moderator"}, Tags: []string{"NEW_USER"}, Profile: map[string]string{"color": "red"}},
		Auth:     &event.Auth{Matched: true, Provider: "twitch"},
		Message:  &event.Message{Text: text, Role: event.RoleUser, RawPlatformPayload: []byte(`{"bits":100}`)},
	}
}

func TestConditions(t *testing.T) {
	bare := &event.Event{V: event.Version, Source: "s", CorrelationID: "c", Type: "t"}
	for _, tt := range []struct {
		when string
		in   *event.Event
		want bool
	}{
		{`event.message.text.startsWith("!ask ")`, chat("!ask why"), true},
		{`event.message.text.startsWith("!ask ")`, chat("ask why"), false},
		{`event.message.text.startsWith("!ask ")`, bare, false},
		{`"moderator" in event.user.roles`, chat(""), true},
		{`"moderator" in event.user.roles`, bare, false},
		{`"NEW_USER" in event.user.tags && event.auth.matched`, chat(""), true},
		{`event.user.profile["color"] == "red"`, chat(""), true},
		{`"color" in event.user.profile`, bare, false},
		{`"moderator" in event.user.rolesMeta["twitch"]`, &event.Event{User: &event.User{RolesMeta: map[string][]string{"twitch": {"moderator"}}}}, true},
		{`event.message.text.lowerAscii().split(" ").size() == 2`, chat("Hello There"), true},
		{`event.message.text.matches("^!(roll|dice)$")`, chat("!roll"), true},
		{`has(event.payload.amount) && event.payload.amount > 3`, chat(""), true},
		{`has(event.payload.amount)`, bare, false},
		{`event.payload.who.name == "Bo"`, chat(""), true},
		{`event.payload.list.exists(n, n == 2)`, chat(""), true},
		{`event.message.rawPlatformPayload.bits >= 100`, chat(""), true},
		{`event.metadata.id == "m1"`, chat(""), true},
		{`event.externalEvent.kind == "raid" && event.externalEvent.payload.viewers > 10`,
			&event.Event{ExternalEvent: &event.ExternalEvent{Kind: "raid", Payload: []byte(`{"viewers":11}`)}}, true},
		{`event.externalEvent.kind == "" && size(event.annotations) == 0 && size(event.candidates) == 0 && event.qos.ttl == 0`, bare, true},
		{`event.timeoutAt == timestamp(0)`, bare, true},
		{`event.errors.exists(e, e.code == "x")`, &event.Event{Errors: []event.Error{{Code: "x"}}}, true},
		{`event.routingSlip.exists(s, s.id == "personality" && s.status == "PENDING")`,
			&event.Event{RoutingSlip: []event.Step{{ID: "personality", Status: "PENDING"}}}, true},
	} {
		o := compileAll(t, says("r", tt.when, "x")).Evaluate(tt.in, at, never)
		if len(o.Failed) > 0 || (len(o.Applied) == 1) != tt.want {
			t.Errorf("%s: applied %d, failed %v; want %v", tt.when, len(o.Applied), o.Failed, tt.want)
		}
	}
}

// In an empty event, expressions can read every member of the wire format.
func TestEveryMemberExists(t *testing.T) {
	for _, member := range []string{
		"v", "source", "correlationId", "type", "traceId", "channel", "userId", "replyTo", "timeoutAt", "payload", "metadata",
		"user.id", "user.email", "user.displayName", "user.roles", "user.status", "user.notes", "user.tags", "user.profile", "user.rolesMeta",
		"auth.v", "auth.provider", "auth.method", "auth.matched", "auth.userRef", "auth.at",
		"message.id", "message.role", "message.text", "message.language", "message.mentionsBot", "message.rawPlatformPayload",
		"externalEvent.id", "externalEvent.source", "externalEvent.kind", "externalEvent.version", "externalEvent.createdAt", "externalEvent.payload", "externalEvent.rawPayload",
		"egress.destination", "egress.type", "routingSlip", "annotations", "candidates", "errors", "qos.ttl",
	} {
		s := compileAll(t, says("r", fmt.Sprintf("event.%s == event.%s", member, member), "x"))
		if o := s.Evaluate(&event.Event{}, at, never); len(o.Applied) != 1 {
			t.Errorf("event.%s: %+v", member, o)
		}
	}
}

func TestInvalidRulesAreRefused(t *testing.T) {
	ok := says("ok", "true", "fine")
	for name, broken := range map[string]store.Rule{
		"a syntax error":               says("r", "event.", "x"),
		"an unknown member":            says("r", `event.mesage.text == ""`, "x"),
		"another variable":             says("r", `user.id == ""`, "x"),
		"no truth value":               says("r", `event.channel`, "x"),
		"an empty condition":           says("r", ``, "x"),
		"a bad regular expression":     says("r", `event.channel.matches("(")`, "x"),
		"an endless expression":        says("r", strings.Repeat("(", 2000)+"true"+strings.Repeat(")", 2000), "x"),
		"an unclosed template":         says("r", "true", "{{ event.channel"),
		"an empty expression":          says("r", "true", "{{ }}"),
		"a broken expression":          says("r", "true", "{{ event.nothing }}"),
		"a list in a text":             says("r", "true", "{{ event.user.roles }}"),
		"no text":                      says("r", "true", ""),
		"nothing to add":               {ID: "r", Enabled: true, When: "true"},
		"an annotation of no kind":     {ID: "r", Enabled: true, When: "true", Annotations: []store.RuleAnnotation{{Value: "x"}}},
		"a score that is no number":    {ID: "r", Enabled: true, When: "true", Annotations: []store.RuleAnnotation{{Kind: "k", Score: number(math.NaN())}}},
		"an annotation without end":    {ID: "r", Enabled: true, When: "true", Annotations: []store.RuleAnnotation{{Kind: "k", Text: strings.Repeat("x", maxSource)}}},
		"an unknown step":              {ID: "r", Enabled: true, When: "true", Slip: []string{"dance"}},
		"a negative cooldown":          {ID: "r", Enabled: true, When: "true", Slip: []string{Personality}, Cooldown: -1},
		"a cooldown without end":       {ID: "r", Enabled: true, When: "true", Slip: []string{Personality}, Cooldown: math.MaxInt64},
		"an unknown platform":          {ID: "r", Enabled: true, When: "true", Slip: []string{Personality}, Egress: &store.RuleEgress{Destination: "icq"}},
		"an unknown type":              {ID: "r", Enabled: true, When: "true", Slip: []string{Personality}, Egress: &store.RuleEgress{Type: "shout"}},
		"an unknown audience":          {ID: "r", Enabled: true, When: "true", Slip: []string{Personality}, Egress: &store.RuleEgress{Audience: "world"}},
		"a model's answer for all":     {ID: "r", Enabled: true, When: "true", Slip: []string{Personality}, Egress: &store.RuleEgress{Audience: "channel"}},
		"an egress without answer":     {ID: "r", Enabled: true, When: "true", Annotations: []store.RuleAnnotation{{Kind: "k"}}, Egress: &store.RuleEgress{}},
		"a priority that is no number": {ID: "r", Enabled: true, When: "true", Slip: []string{Personality}, Priority: math.Inf(1)},
	} {
		t.Run(name, func(t *testing.T) {
			s, failures := Compile([]store.Rule{broken, ok}, nil)
			if len(failures) != 1 || failures[0].ID != "r" {
				t.Errorf("failures = %v; want one of r", failures)
			}
			if o := s.Evaluate(chat(""), at, never); len(o.Applied) != 1 || o.Applied[0].ID != "ok" {
				t.Errorf("outcome = %+v; want that of ok alone", o)
			}
		})
	}
}

// panicking simulates a panic not recovered by the CEL library.
type panicking struct{}

func (panicking) Eval(any) (ref.Val, *cel.EvalDetails, error) { panic("boom") }
func (p panicking) ContextEval(context.Context, any) (ref.Val, *cel.EvalDetails, error) {
	return p.Eval(nil)
}
func (panicking) ConcurrentEval(context.Context, any) <-chan cel.EvalResult { panic("boom") }

func TestFailingRuleDoesNotAffectOthers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		broken store.Rule
		spoil  func(*compiled)
	}{
		{"a missing member of the payload", says("r", "event.payload.gone == 1", "x"), nil},
		{"a type that is not known before", says("r", "event.payload.amount", "x"), nil},
		{"a division by zero", says("r", "1 / (event.qos.ttl) == 1", "x"), nil},
		{"a text that can't be made", says("r", "true", "{{ event.payload.gone }}"), nil},
		{"a text of a list", says("r", "true", "{{ event.payload.list }}"), nil},
		{"a cost without end", says("r", `event.message.text.split("").all(a, event.message.text.split("").all(b, a != "" && b != ""))`, "x"), nil},
		{"a panic in the condition", says("r", "true", "x"), func(c *compiled) { c.when.program = panicking{} }},
		{"a panic in the text", says("r", "true", "{{ event.channel }}"), func(c *compiled) { c.texts[0][0].program.program = panicking{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := compileAll(t, tt.broken, says("ok", "true", "fine"))
			for _, c := range s.rules {
				if c.ID == "r" && tt.spoil != nil {
					tt.spoil(c)
				}
			}
			o := s.Evaluate(chat(strings.Repeat("x", 2000)), at, never)
			if len(o.Failed) != 1 || o.Failed[0].ID != "r" || o.Failed[0].Err == nil {
				t.Errorf("failed = %v; want r", o.Failed)
			}
			if len(o.Applied) != 1 || o.Applied[0].ID != "ok" || o.Evaluated != 2 {
				t.Errorf("outcome = %+v; want that of ok alone, of 2 evaluated", o)
			}
		})
	}
}

func TestTexts(t *testing.T) {
	for _, tt := range []struct{ template, want string }{
		{"plain", "plain"},
		{"Hello {{event.user.displayName}}!", "Hello Ada!"},
		{"{{ event.user.displayName }} {{ event.channel }}", "Ada lobby"},
		{"{{ size(event.user.roles) }}, {{ event.payload.amount }}, {{ 1.5 }}, {{ true }}, {{ 2u }}", "1, 5, 1.5, true, 2"},
		{"{{ timestamp('2026-01-02T03:04:05Z') }} {{ duration('90s') }}", "2026-01-02T03:04:05Z 90s"},
		{"[{{ null }}]", "[]"},
		{`{{ "}}" + '{{' }}`, "}}{{"},
		{`{{ {'a': {'b': 'c'}}['a']['b'] }}`, "c"},
		{`{{ r'\' + """a"}}b""" }}`, `\a"}}b`},
		{`{{ 'it\'s }}' }}`, "it's }}"},
		{"{{ size(event.user.roles) == 0 ? 'no roles' : event.user.roles.join(', ') }}", "moderator"},
		{"a } b }} c { d", "a } b }} c { d"},
	} {
		o := compileAll(t, says("r", "true", tt.template)).Evaluate(chat(""), at, never)
		if len(o.Applied) != 1 || len(o.Applied[0].Candidates) != 1 {
			t.Errorf("%s: outcome = %+v", tt.template, o)
			continue
		}
		if got := o.Applied[0].Candidates[0].Text; got != tt.want {
			t.Errorf("%s = %q; want %q", tt.template, got, tt.want)
		}
	}
}

func TestTextIsBounded(t *testing.T) {
	s := compileAll(t, says("r", "true", "{{ event.message.text }}{{ event.message.text }}"))
	o := s.Evaluate(chat(strings.Repeat("ä", 3000)), at, never)
	if got := o.Applied[0].Candidates[0].Text; got != strings.Repeat("ä", maxText) {
		t.Errorf("%d bytes; want %d characters", len(got), maxText)
	}
}

func TestEmptyTextIsNoAnswer(t *testing.T) {
	s := compileAll(t, says("r", "true", " {{ event.replyTo }}\n"))
	o := s.Evaluate(chat(""), at, never)
	if _, ok := o.Answer(); ok || len(o.Applied) != 1 {
		t.Errorf("outcome = %+v; want one that holds, without an answer", o)
	}
}

func TestQuotesOfOperatorsAndPeopleStay(t *testing.T) {
	for _, text := range []string{`"hello"`, "`code`", `""`} {
		s := compileAll(t, says("literal", "true", text), says("template", "true", "{{ event.message.text }}"))
		for _, a := range s.Evaluate(chat(text), at, never).Applied {
			if len(a.Candidates) != 1 || a.Candidates[0].Text != text {
				t.Errorf("%q by %s gives %+v", text, a.ID, a.Candidates)
			}
		}
	}
}

func TestRuleAdditions(t *testing.T) {
	r := store.Rule{
		ID: "r", Enabled: true, When: "true", Priority: 7, Slip: []string{Personality},
		Annotations: []store.RuleAnnotation{
			{Kind: "personality", Name: "pirate", Score: number(2)},
			{Kind: "personality", Text: "Be kind.", Label: "l", Value: "v"},
		},
		Candidates: []store.RuleCandidate{{Text: "a"}, {Text: "b", Kind: "card", Priority: number(1), Confidence: number(0.5)}},
		Egress:     &store.RuleEgress{Destination: "discord", Type: "dm"},
	}
	o := compileAll(t, r).Evaluate(chat(""), at, never)
	e := chat("")
	e.Candidates = []event.Candidate{{ID: "other", Text: "o"}, {ID: "rule:r#0", Text: "from before"}}
	o.AddTo(e)
	o.AddTo(e) // an event that comes through twice has it once
	want := chat("")
	want.Annotations = []event.Annotation{
		{ID: "rule:r#0", Kind: "personality", Source: "rule:r", CreatedAt: at, Score: number(2), Payload: []byte(`{"name":"pirate"}`)},
		{ID: "rule:r#1", Kind: "personality", Source: "rule:r", CreatedAt: at, Label: "l", Value: "v", Payload: []byte(`{"text":"Be kind."}`)},
	}
	whole := answer.TemplateMetadata([]answer.Span{{0, 1}}) // literal text
	want.Candidates = []event.Candidate{
		{ID: "other", Text: "o"},
		{ID: "rule:r#0", Kind: "text", Source: "rule:r", CreatedAt: at, Status: event.CandidateProposed, Priority: number(7), Text: "a", Format: "plain", Metadata: whole},
		{ID: "rule:r#1", Kind: "card", Source: "rule:r", CreatedAt: at, Status: event.CandidateProposed, Priority: number(1), Confidence: number(0.5), Text: "b", Format: "plain", Metadata: whole},
	}
	want.RoutingSlip = []event.Step{{ID: Personality, V: "1", Status: event.StepPending, NextTopic: "internal.user.enriched.v1"}}
	want.Egress = &event.Egress{Destination: "discord", Type: "dm"}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if e.Next() != Personality {
		t.Errorf("next = %q", e.Next())
	}
}

func TestRulesAreOrderedByPriority(t *testing.T) {
	a, b, c, off := says("a", "true", "a"), says("b", "true", "b"), says("c", "true", "c"), says("off", "true", "x")
	a.Priority, b.Priority, c.Priority, off.Enabled = 2, 1, 1, false
	o := compileAll(t, a, c, off, b).Evaluate(chat(""), at, never)
	var got []string
	for _, x := range o.Applied {
		got = append(got, x.ID)
	}
	if diff := cmp.Diff([]string{"b", "c", "a"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if a, ok := o.Answer(); !ok || a.ID != "b" || a.Step() != "rule:b" {
		t.Errorf("answer = %+v; want b's", a)
	}
}

func TestDirect(t *testing.T) {
	for _, tt := range []struct {
		name   string
		egress *store.RuleEgress
		in     *event.Event
		want   event.Event
	}{
		{"says nothing", nil, &event.Event{UserID: "u", Channel: "c"}, event.Event{UserID: "u", Channel: "c"}},
		{"the user", &store.RuleEgress{Type: "dm", Audience: "user"}, &event.Event{UserID: "u", Channel: "c"},
			event.Event{UserID: "u", Channel: "c", Egress: &event.Egress{Type: "dm"}}},
		{"the channel", &store.RuleEgress{Audience: "channel"}, &event.Event{UserID: "u", Channel: "c", Egress: &event.Egress{Destination: "twitch"}},
			event.Event{Channel: "c", Egress: &event.Egress{Destination: "twitch"}}},
		{"no channel", &store.RuleEgress{Audience: "channel"}, &event.Event{UserID: "u"}, event.Event{UserID: "u", Egress: &event.Egress{}}},
	} {
		Applied{Egress: tt.egress}.Direct(tt.in)
		if diff := cmp.Diff(&tt.want, tt.in); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestCooldownsAndRepetition(t *testing.T) {
	r := says("r", `"moderator" in event.user.roles`, "x")
	r.Cooldown = 60
	s := compileAll(t, r, says("other", "true", "y"))
	o := s.Evaluate(chat(""), at, func(id string) bool { return id == "r" })
	if o.OnCooldown != 1 || len(o.Applied) != 1 || o.Applied[0].ID != "other" {
		t.Errorf("outcome = %+v; want other alone", o)
	}
	e := chat("")
	e.User.Roles = nil // lost since
	o = s.Repeat(e, at, []string{"r", "deleted"})
	if len(o.Applied) != 1 || o.Applied[0].ID != "r" || o.Applied[0].Cooldown != time.Minute || o.Evaluated != 0 {
		t.Errorf("outcome = %+v; want r alone, unasked", o)
	}
}

func TestUnchangedRulesAreReused(t *testing.T) {
	a, b := says("a", "true", "a"), says("b", "true", "b")
	first := compileAll(t, a, b)
	b.When = "false"
	second, failures := Compile([]store.Rule{a, b}, first)
	if len(failures) > 0 || second.rules[0] != first.rules[0] || second.rules[1] == first.rules[1] {
		t.Errorf("failures %v; want a taken over, and b compiled anew", failures)
	}
}

func TestAdditionsOfAllRulesAreBounded(t *testing.T) {
	var rules []store.Rule
	for i := range 9 {
		rules = append(rules, store.Rule{ID: fmt.Sprint(i), Enabled: true, When: "true", Annotations: []store.RuleAnnotation{{Kind: "k", Text: strings.Repeat("x", maxSource-10)}}})
	}
	rules = append(rules, says("small", "true", "ok"))
	o := compileAll(t, rules...).Evaluate(chat(""), at, never)
	if len(o.Failed) != 2 || o.Failed[0].ID != "7" || len(o.Applied) != 8 || o.Applied[7].ID != "small" {
		t.Errorf("%d applied, failed %v; want what fits", len(o.Applied), o.Failed)
	}
}

// A requested step becomes the attribute in the filter of the function's subscription.
func TestStepMatchesTheSubscription(t *testing.T) {
	for _, s := range topology.Subscriptions() {
		if s.Filter == fmt.Sprintf("attributes.next = %q", Personality) {
			return
		}
	}
	t.Errorf("no subscription has a filter for %q", Personality)
}

func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"", "a", "{{", "}}", "{{}}", "{{a}}", "{{ '}}' }}b", `{{ "\" }}`, "{{ {{ }} }}", "{{ r'\\' }}", "{{'''}}", "ä{{ö}}", "{{ event.channel }}", "{{}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, template string) {
		parts, err := split(template)
		if err == nil {
			rest := template
			for _, p := range parts {
				text := p.literal
				if p.isExpr {
					text = p.expression
					if strings.TrimSpace(text) == "" {
						t.Errorf("%q: an expression of nothing", template)
					}
				} else if strings.Contains(text, "{{") {
					t.Errorf("%q: {{ left in the literal %q", template, text)
				}
				_, after, found := strings.Cut(rest, text)
				if !found {
					t.Fatalf("%q: %q is not in it, or not in this order", template, text)
				}
				rest = after
			}
			if !strings.Contains(template, "{{") && (len(parts) > 1 || len(parts) == 1 && parts[0].literal != template) {
				t.Errorf("%q = %v; want it as it is", template, parts)
			}
		}
		s, failures := Compile([]store.Rule{says("r", "true", template)}, nil)
		if s.Len()+len(failures) != 1 {
			t.Fatalf("%q: %d rules and %d failures", template, s.Len(), len(failures))
		}
		s.Evaluate(chat("hello"), at, never)
	})
}

// A large community has about a hundred rules, and three of them hold.
func BenchmarkEvaluate100Rules(b *testing.B) {
	var rules []store.Rule
	for i := range 97 {
		rules = append(rules, says(fmt.Sprintf("r%d", i), fmt.Sprintf(`event.type == "chat.message" && event.message.text.startsWith("!command%d")`, i), "x"))
	}
	rules = append(rules,
		says("mod", `"moderator" in event.user.roles`, "Hello {{ event.user.displayName }}"),
		says("new", `event.user.tags.exists(t, t == "NEW_USER")`, "Welcome {{ event.user.displayName }} to {{ event.channel }}"),
		says("bits", `has(event.message.rawPlatformPayload.bits) && event.message.rawPlatformPayload.bits > 10`, "Thanks"),
	)
	s := compileAll(b, rules...)
	e := chat("what is new in here today, everybody?")
	b.ReportAllocs()
	for b.Loop() {
		if o := s.Evaluate(e, at, never); len(o.Applied) != 3 {
			b.Fatalf("%+v", o)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	r := says("r", `event.type == "chat.message" && event.message.text.startsWith("!command")`, "Hello {{ event.user.displayName }}")
	for b.Loop() {
		Compile([]store.Rule{r}, nil)
	}
}
