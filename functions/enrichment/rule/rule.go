// Package rule compiles the rules that operators write and finds out what they add to an event. It decides only: it
// reads and writes nothing.
//
// A condition and the {{ parts }} of a text are expressions in CEL (https://github.com/google/cel-spec) over one
// variable, event, with the strings extension (https://pkg.go.dev/github.com/google/cel-go/ext#Strings). Every member
// that the wire format defines is there, with its zero value ("", 0, false, an empty list or map, the Unix epoch)
// where the event says nothing, so that event.message.text.startsWith("!ask ") and "moderator" in event.user.roles hold
// or don't, and never fail. The names are checked when a rule is compiled: event.mesage is an error then, not a rule
// that silently never holds. Only payload, metadata, message.rawPlatformPayload, externalEvent.payload and
// externalEvent.rawPayload are dynamic; a member of theirs may be missing, which has(event.payload.amount) tells. Of
// routing slip, annotations, candidates and errors an expression sees the members that tell one from another.
//
// Rules see the event as it was before any of them, so that one does not depend on what another added.
//
// What an expression may cost is bounded, and so is what a rule adds. A rule that does not compile, or fails for an
// event, adds nothing and leaves all others alone.
package rule

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// Personality is the one step that a rule can ask for: a model's answer.
const Personality = "personality"

// AudienceChannel is the Audience of an answer that everybody in the channel gets.
const AudienceChannel = "channel"

const (
	// costLimit bounds one expression, in CEL's units: about one for each operation, and one for each ten characters
	// that are searched. A rule over a chat line costs some tens; searching the longest event, 26,000.
	costLimit = 30_000

	// maxExpression is the most characters of an expression; a regular expression in it is bounded by that, too.
	maxExpression = 4 << 10

	// maxText is the most characters of an answer after its expressions were filled in. No platform takes more in one
	// message: Discord 2,000, Twitch 500.
	maxText = 4000

	// maxSource is the most bytes that a rule's annotation or its candidate's template may have, maxAdded how many of
	// them a rule may have, and maxTotal how many bytes all rules together may add to an event: it has to stay below
	// event.MaxSize, or it could not be published.
	maxSource = 8 << 10
	maxAdded  = 8
	maxTotal  = 64 << 10

	// maxCooldown keeps entries of a user document from living for ever.
	maxCooldown = 30 * 24 * time.Hour
)

// Failure is a rule that could not be compiled or evaluated.
type Failure struct {
	ID  string
	Err error // may hold a part of the event
}

// Set is compiled rules in the order in which they are evaluated: by priority, then by id. It does not change, and is
// safe for concurrent use.
type Set struct {
	rules []*compiled
	raw   bool // whether some rule looks at a raw JSON member
}

// Len is the number of rules in the set.
func (s *Set) Len() int { return len(s.rules) }

type compiled struct {
	store.Rule
	when   cel.Program
	texts  [][]piece // of the candidates
	action *action   // nil if it does not act
}

// piece is a part of a compiled template.
type piece struct {
	literal string
	program cel.Program // nil for a literal
}

// environment is the same for all rules; making it takes longer than compiling one.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[*view](), ext.ParseStructTags(true)),
		ext.Strings(),
		cel.Variable("event", cel.ObjectType("rule.view")),
		cel.CrossTypeNumericComparisons(true), // numbers of raw JSON are doubles, and literals ints
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
	)
})

// Compile compiles rules. Those that can't be are left out of the set and told as failures. previous may be nil; the
// rules that it holds unchanged are taken over from it.
func Compile(rules []store.Rule, previous *Set) (*Set, []Failure) {
	s := &Set{}
	var failures []Failure
	for _, r := range rules {
		if !r.Enabled {
			continue
		}
		c := previous.unchanged(r)
		if c == nil {
			var err error
			if c, err = compile(r); err != nil {
				failures = append(failures, Failure{ID: r.ID, Err: err})
				continue
			}
		}
		s.rules = append(s.rules, c)
		s.raw = s.raw || usesRawJSON(r)
	}
	slices.SortFunc(s.rules, func(a, b *compiled) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.ID, b.ID))
	})
	return s, failures
}

func (s *Set) unchanged(r store.Rule) *compiled {
	if s == nil {
		return nil
	}
	for _, c := range s.rules {
		if c.ID == r.ID && reflect.DeepEqual(c.Rule, r) {
			return c
		}
	}
	return nil
}

// usesRawJSON errs on the side of yes: the word may also stand in a text.
func usesRawJSON(r store.Rule) bool {
	mentions := func(s string) bool { return strings.Contains(s, "ayload") || strings.Contains(s, "metadata") }
	return mentions(r.When) || r.Action != nil && slices.ContainsFunc(actionTemplates(r.Action), mentions) || slices.ContainsFunc(r.Candidates, func(c store.RuleCandidate) bool { return mentions(c.Text) })
}

func compile(r store.Rule) (c *compiled, err error) {
	defer recoverInto(&err)
	if err := check(r); err != nil {
		return nil, err
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("CEL: %w", err)
	}
	c = &compiled{Rule: r}
	if c.when, err = program(env, r.When, cel.BoolType); err != nil {
		return nil, fmt.Errorf("when: %w", err)
	}
	for i, candidate := range r.Candidates {
		pieces, err := compileTemplate(env, candidate.Text)
		if err != nil {
			return nil, fmt.Errorf("candidates.%d.text: %w", i, err)
		}
		c.texts = append(c.texts, pieces)
	}
	if r.Action != nil {
		if c.action, err = compileAction(env, r.Action); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// check refuses what the expressions' compiler does not see.
func check(r store.Rule) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	finite := func(field string, f *float64) {
		if f != nil && (math.IsNaN(*f) || math.IsInf(*f, 0)) {
			bad("%s: not a finite number", field) // has no form in JSON, so it would keep the event from being published
		}
	}
	if len(r.Annotations)+len(r.Candidates)+len(r.Slip) == 0 && r.Action == nil {
		bad("adds nothing: no annotations, candidates, slip or action")
	}
	if len(r.Annotations) > maxAdded || len(r.Candidates) > maxAdded {
		bad("more than %d annotations or candidates", maxAdded)
	}
	finite("priority", &r.Priority)
	for i, a := range r.Annotations {
		if a.Kind == "" {
			bad("annotations.%d.kind: missing", i)
		}
		if len(a.Kind)+len(a.Value)+len(a.Label)+len(a.Text)+len(a.Name) > maxSource {
			bad("annotations.%d: longer than %d bytes", i, maxSource)
		}
		finite(fmt.Sprintf("annotations.%d.score", i), a.Score)
	}
	for i, c := range r.Candidates {
		if c.Text == "" {
			bad("candidates.%d.text: missing", i)
		}
		if len(c.Text)+len(c.Kind) > maxSource {
			bad("candidates.%d: longer than %d bytes", i, maxSource)
		}
		finite(fmt.Sprintf("candidates.%d.priority", i), c.Priority)
		finite(fmt.Sprintf("candidates.%d.confidence", i), c.Confidence)
	}
	for i, s := range r.Slip {
		if s != Personality {
			bad("slip.%d: %q is not a step that there is (%s)", i, s, Personality)
		}
	}
	if r.Cooldown < 0 || r.Cooldown > int64(maxCooldown/time.Second) {
		bad("cooldownSeconds: not between 0 and %d", int64(maxCooldown/time.Second))
	}
	if g := r.Egress; g != nil {
		if g.Destination != "" && !identity.Platform(g.Destination).Known() {
			bad("egress.destination: %q is not a platform", g.Destination)
		}
		switch g.Type {
		case "", event.EgressChat, event.EgressDM, event.EgressEvent:
		default:
			bad("egress.type: %q is not chat, dm or event", g.Type)
		}
		switch {
		case g.Audience == AudienceChannel && len(r.Slip) > 0:
			bad("egress.audience: channel is only for a rule that answers by itself")
		case g.Audience != "" && g.Audience != "user" && g.Audience != AudienceChannel:
			bad("egress.audience: %q is not user or channel", g.Audience)
		}
		if len(r.Candidates)+len(r.Slip) == 0 {
			bad("egress: the rule has no answer, neither candidates nor slip")
		}
		errs = append(errs, checkAddresses(g))
	}
	return errors.Join(errs...)
}

// program compiles an expression whose value has one of the wanted types.
func program(env *cel.Env, source string, want ...*cel.Type) (cel.Program, error) {
	ast, issues := env.Compile(source)
	if err := issues.Err(); err != nil {
		return nil, err
	}
	if t := ast.OutputType(); t.Kind() != types.DynKind && !slices.ContainsFunc(want, t.IsExactType) {
		return nil, fmt.Errorf("is a %s, not a %s", t, want[0])
	}
	return env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit))
}

func compileTemplate(env *cel.Env, text string) ([]piece, error) {
	parts, err := split(text)
	if err != nil {
		return nil, err
	}
	var pieces []piece
	for _, p := range parts {
		if !p.isExpr {
			pieces = append(pieces, piece{literal: p.literal})
			continue
		}
		program, err := program(env, p.expression, cel.StringType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType, cel.TimestampType, cel.DurationType, cel.NullType)
		if err != nil {
			return nil, fmt.Errorf("{{ %s }}: %w", p.expression, err)
		}
		pieces = append(pieces, piece{program: program})
	}
	return pieces, nil
}

// recoverInto turns a panic into an error. CEL has a recover of its own, but not around all that is called here.
func recoverInto(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}
