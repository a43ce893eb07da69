// Package parts lists the environment variables of each deployed part, from the part's configuration type, and the setter
// of each variable. Start with [Variables] and [Settable]. The tests of package check cover the package.
package parts

import (
	"fmt"
	"maps"
	"slices"

	"parley.internal/functions/dlq"
	"parley.internal/functions/enrichment"
	"parley.internal/functions/personality"
	"parley.internal/functions/whisper"
	"parley.internal/gateway/instance"
	"parley.internal/shared/config"
)

// part describes the configuration type of a part and loads a configuration.
type part struct {
	describe func() []config.Variable
	load     func(environ []string) error
}

func of[T any]() part {
	return part{describe: config.Describe[T], load: func(environ []string) error {
		_, err := config.Load[T](environ)
		return err
	}}
}

// all has the parts by their names in the topology and in Terraform. Add a new part here.
var all = map[string]part{
	"dlq":         of[dlq.Config](),
	"enrichment":  of[enrichment.Config](),
	"gateway":     of[instance.Config](),
	"personality": of[personality.Config](),
	"whisper":     of[whisper.Config](),
}

// Variables returns the environment variables of each part.
func Variables() map[string][]config.Variable {
	vars := map[string][]config.Variable{}
	for name, p := range all {
		vars[name] = p.describe()
	}
	return vars
}

// Validate returns the error of a part's start with an environment in the form of os.Environ.
func Validate(name string, environ []string) error {
	p, ok := all[name]
	if !ok {
		return fmt.Errorf("unknown part %q", name)
	}
	return p.load(environ)
}

// Setter is the origin of a variable outside of var.environment.
type Setter string

// The setters.
const (
	Terraform Setter = "terraform" // another Terraform variable
	Secret    Setter = "secret"    // Secret Manager, never plain text
	Platform  Setter = "platform"  // Cloud Run; some are not set there
)

// Reserved lists the variables that var.environment must not set.
var Reserved = map[string]Setter{
	"GOOGLE_CLOUD_PROJECT":  Terraform,
	"FIRESTORE_DATABASE":    Terraform,
	"BUS_PREFIX":            Terraform,
	"LOG_LEVEL":             Terraform,
	"MODEL_PROVIDER":        Terraform,
	"MODEL_NAME":            Terraform,
	"WS_MAX_CONNECTIONS":    Terraform,
	"CREDENTIAL_KEY":        Terraform,
	"TWITCH_CLIENT_ID":      Terraform,
	"TWITCH_BOT_USER_ID":    Terraform,
	"TWITCH_CHANNELS":       Terraform,
	"OAUTH_ALLOWED_USERS":   Terraform,
	"PUBLIC_URL":            Terraform,
	"DISCORD_ROLES":         Terraform,
	"GEMINI_API_KEY":        Secret,
	"OPENAI_API_KEY":        Secret,
	"DISCORD_BOT_TOKEN":     Secret,
	"TWITCH_CLIENT_SECRET":  Secret,
	"OAUTH_OPERATOR_SECRET": Secret,
	"METRICS_TOKEN":         Secret,
	"LOG_FORMAT":            Platform, // alerts read JSON logs
	"PORT":                  Platform,
	"LISTEN_ADDR":           Platform,
	"K_SERVICE":             Platform,
}

// Settable returns the sorted names of the variables that var.environment may set, by part.
func Settable() map[string][]string {
	settable := map[string][]string{}
	for part, vars := range Variables() {
		names := map[string]bool{}
		for _, v := range vars {
			if _, reserved := Reserved[v.Name]; !reserved {
				names[v.Name] = true
			}
		}
		settable[part] = slices.Sorted(maps.Keys(names))
	}
	return settable
}
