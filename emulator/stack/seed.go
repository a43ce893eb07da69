package stack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"time"

	"cloud.google.com/go/firestore"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// Seed holds the first documents of a local Parley, by id, in Firestore's format.
type Seed struct {
	Users         map[string]map[string]any `yaml:"users"`
	Personalities map[string]map[string]any `yaml:"personalities"`
	Rules         map[string]map[string]any `yaml:"rules"`
	Identities    map[string]map[string]any `yaml:"identities"`
}

// ParseSeed reads a seed from YAML. The error names every problem by collection, id and field: an invalid id, an
// unknown field, a field of a wrong type, a rule that does not compile.
func ParseSeed(data []byte) (Seed, error) {
	var s Seed
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return Seed{}, fmt.Errorf("read the seed: %w", err)
	}
	var errs []error
	var rules []store.Rule
	for _, c := range s.collections() {
		for _, id := range slices.Sorted(maps.Keys(c.docs)) {
			if c.name == "users" || c.name == "identities" {
				if _, err := identity.Parse(id); err != nil {
					errs = append(errs, fmt.Errorf("%s/%s: %w", c.name, id, err))
				}
			}
			read := reflect.New(c.as)
			wrong := fill("", c.docs[id], read.Elem())
			for _, err := range wrong {
				errs = append(errs, fmt.Errorf("%s/%s: %w", c.name, id, err))
			}
			if len(wrong) > 0 {
				continue
			}
			switch doc := read.Interface().(type) {
			case *store.Link:
				errs = append(errs, s.checkLink(id, doc.User))
			case *store.Rule:
				doc.ID = id
				rules = append(rules, *doc)
			}
		}
	}
	_, failures := rule.Compile(rules, nil)
	for _, f := range failures {
		for _, err := range flatten(f.Err) {
			errs = append(errs, fmt.Errorf("rules/%s: %w", f.ID, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Seed{}, fmt.Errorf("read the seed: %w", err)
	}
	return s, nil
}

// flatten splits joined errors.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// checkLink refuses a link that would be ignored, and a link to a linked user.
func (s Seed) checkLink(id, user string) error {
	who, err := identity.Parse(id)
	if err != nil {
		return nil // reported already
	}
	person, err := store.Link{ID: who, User: user}.Person()
	if err != nil {
		return err
	}
	if _, chained := s.Identities[person.String()]; chained {
		return fmt.Errorf("identities/%s: user: %s is linked itself", id, person)
	}
	return nil
}

type collection struct {
	name string
	docs map[string]map[string]any
	as   reflect.Type // type that the parts decode a document into
}

func (s Seed) collections() []collection {
	return []collection{
		{"users", s.Users, reflect.TypeFor[store.User]()},
		{"personalities", s.Personalities, reflect.TypeFor[store.Personality]()},
		{"rules", s.Rules, reflect.TypeFor[store.Rule]()},
		{"identities", s.Identities, reflect.TypeFor[store.Link]()},
	}
}

// tokenLifetime is long enough for a day of work, and short enough that a token in a terminal's history soon expires.
const tokenLifetime = 24 * time.Hour

// Write writes the missing documents of the seed, and makes a token for each user.
func (s Seed) Write(ctx context.Context, client *firestore.Client, now time.Time) (tokens map[string]string, err error) {
	for _, c := range s.collections() {
		for id, doc := range c.docs {
			_, err := client.Collection(c.name).Doc(id).Create(ctx, doc)
			if err != nil && status.Code(err) != codes.AlreadyExists {
				return nil, fmt.Errorf("seed %s/%s: %w", c.name, id, err)
			}
		}
	}
	tokens = make(map[string]string, len(s.Users))
	st := store.New(client)
	for id := range s.Users {
		raw := rand.Text()
		err := st.PutToken(ctx, store.TokenHash(raw), store.Token{UserID: id, CreatedAt: now, ExpiresAt: now.Add(tokenLifetime)})
		if err != nil {
			return nil, err
		}
		tokens[id] = raw
	}
	return tokens, nil
}
