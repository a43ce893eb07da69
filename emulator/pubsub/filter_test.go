package pubsub

import (
	"strings"
	"testing"
)

func TestFilterAcceptsMessagesAsDocumented(t *testing.T) {
	attributes := map[string]string{
		"domain": "com", "name": "net", "x-y_1": "v", "iana.org/language_tag": "en", "quote\"d": "a\\b", "empty": "", "みんな": "ä",
	}
	for text, want := range map[string]bool{
		``:                                                             true,
		`attributes:domain`:                                            true,
		`attributes:Domain`:                                            false,
		`attributes:empty`:                                             true,
		`attributes:"iana.org/language_tag"`:                           true,
		`attributes.domain = "com"`:                                    true,
		`attributes.domain="com"`:                                      true,
		`attributes.domain = "COM"`:                                    false,
		`attributes.domain != "com"`:                                   false,
		`attributes.domain != "org"`:                                   true,
		`attributes.missing != "com"`:                                  true,
		`attributes.missing = ""`:                                      false,
		`attributes.empty = ""`:                                        true,
		`attributes.x-y_1 = "v"`:                                       true,
		`attributes."x-y_1" = "v"`:                                     true,
		`attributes."quote\"d" = "a\\b"`:                               true,
		`attributes:"\u307F\u3093\u306A"`:                              true,
		`attributes."みんな" = "\xc3\xa4"`:                                true,
		`attributes."\144omain" = "com"`:                               true,
		`hasPrefix(attributes.domain, "co")`:                           true,
		`hasPrefix(attributes.domain, "")`:                             true,
		`hasPrefix(attributes.missing, "")`:                            false,
		`hasPrefix(attributes.domain, "com.")`:                         false,
		`hasPrefix ( attributes . domain ,"co")`:                       true,
		`NOT attributes:domain`:                                        false,
		`NOT attributes:missing`:                                       true,
		`-attributes:missing`:                                          true,
		`- attributes:missing`:                                         true,
		`-(attributes:missing OR attributes:domain)`:                   false,
		`NOT(attributes:missing)`:                                      true,
		`NOT hasPrefix(attributes.domain, "o")`:                        true,
		`attributes:domain AND attributes:missing`:                     false,
		`attributes:domain OR attributes:missing`:                      true,
		`attributes:missing OR attributes:missing2 OR attributes:name`: true,
		`attributes:domain AND attributes:name AND -attributes:x`:      true,
		`attributes:"iana.org/language_tag" AND (attributes.name = "net" OR attributes.name = "org")`: true,
		`(attributes:missing AND attributes:domain) OR attributes:name`:                               true,
		`((attributes:domain))`:                                                true,
		"attributes:domain\n\tAND attributes:name":                             true,
		`attributes:domain AND attributes.domain != "com" AND attributes:name`: false,
		`attributes.AND = "x"`:                                                 false,
		`attributes.domain != "com" OR attributes.name = "x" OR (NOT hasPrefix(attributes.h, "m") OR attributes.h = "moot")`: true,
	} {
		f, err := parseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := f.match(attributes); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestInvalidFilterIsRefused(t *testing.T) {
	for _, text := range []string{
		` `, `attributes`, `attributes:`, `attributes.`, `attributes.domain`, `attributes.domain =`, `attributes.domain = com`,
		`attributes.domain = 'com'`, `attributes.domain == "com"`, `attributes.domain < "com"`, `attributes.domain : "com"`,
		`attributes.domain = "com`, `attributes.domain = "\q"`, "attributes.domain = \"a\nb\"", `attributes:iana.org/language_tag`,
		`attributes:a AND attributes:b OR attributes:c`, `attributes:a OR attributes:b AND attributes:c`,
		`attributes:a and attributes:b`, `attributes:a attributes:b`, `attributes:a AND`, `AND attributes:a`, `NOT`, `-`,
		`NOT NOT attributes:a`, `NOT -attributes:a`, `--attributes:a`, `(attributes:a`, `attributes:a)`, `()`,
		`hasPrefix(attributes.a)`, `hasPrefix(attributes:a, "b")`, `hasPrefix(attributes.a, b)`, `hasPrefix attributes.a, "b"`,
		`hasSuffix(attributes.a, "b")`, `data = "x"`, `Attributes:a`, "attributes:a\x00", "attributes:\xff",
		`attributes:a OR ` + strings.Repeat("(", 100),
		`attributes:` + strings.Repeat("a", 246),
	} {
		if _, err := parseFilter(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := parseFilter(`attributes:` + strings.Repeat("a", 245)); err != nil {
		t.Errorf("a filter of 256 bytes: %v", err)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`attributes:"iana.org/language_tag" AND (attributes.name = "net" OR NOT hasPrefix(attributes.x, "a"))`, "name", "net")
	f.Add(`-attributes.a != "\u00e4"`, "a", "ä")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		p, err := parseFilter(text)
		if err != nil || p == nil {
			return
		}
		attributes := map[string]string{key: value}
		got := p.match(attributes)
		if len(text) > maxFilterBytes-len("NOT ()") {
			return
		}
		// An accepted filter is also accepted in parentheses and negated.
		for wrapped, want := range map[string]bool{"(" + text + ")": got, "NOT (" + text + ")": !got, "-(" + text + ")": !got} {
			q, err := parseFilter(wrapped)
			if err != nil {
				t.Fatalf("%q was taken, but not %q: %v", text, wrapped, err)
			}
			if q.match(attributes) != want {
				t.Fatalf("%q does not give %v", wrapped, want)
			}
		}
	})
}
