package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/config"
)

type part struct {
	config.Deployment
	Limit   int           `env:"LIMIT" envDefault:"7" help:"A limit."`
	Timeout time.Duration `env:"TIMEOUT" envDefault:"30s" help:"A time."`
	Nested  nested
}

// Validate hides the Validate of the embedded Deployment.
func (p part) Validate() error {
	if p.Limit < 0 {
		return errors.Join(errors.New("LIMIT: negative"), p.Deployment.Validate())
	}
	return nil
}

type nested struct {
	Model    string `env:"MODEL" envDefault:"embedded" help:"A model."`
	Positive int    `env:"POSITIVE" envDefault:"1" help:"A positive number."`
}

func (n nested) Validate() error {
	if n.Positive <= 0 {
		return fmt.Errorf("POSITIVE: %d is not more than 0", n.Positive)
	}
	if n.Model == "none" {
		return errors.New("MODEL: none is not a model")
	}
	return nil
}

func TestLoadReadsDefaultsAndValues(t *testing.T) {
	c, err := config.Load[part]([]string{"GOOGLE_CLOUD_PROJECT=p", "LIMIT=9", "BUS_PREFIX=staging."})
	if err != nil {
		t.Fatal(err)
	}
	if c.Project != "p" || c.Limit != 9 || c.Timeout != 30*time.Second || c.Prefix.String() != "staging." || c.Nested.Model != "embedded" {
		t.Errorf("loaded %+v", c)
	}
}

func TestLoadReportsEveryErrorByItsVariable(t *testing.T) {
	_, err := config.Load[part]([]string{"LIMIT=many", "TIMEOUT=soon", "BUS_PREFIX=1", "LOG_FORMAT=xml", "LOG_LEVEL=loud", "MODEL=none"})
	if err == nil {
		t.Fatal("loaded")
	}
	for _, want := range []string{"GOOGLE_CLOUD_PROJECT: required", "LIMIT: ", "TIMEOUT: ", "BUS_PREFIX: ", "LOG_FORMAT: ", "LOG_LEVEL: ", "MODEL: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "LOG_FORMAT"); n != 1 {
		t.Errorf("LOG_FORMAT is reported %d times", n)
	}
}

func TestValueOfTheWrongTypeIsReportedOnceInPlainWords(t *testing.T) {
	_, err := config.Load[part]([]string{"GOOGLE_CLOUD_PROJECT=p", "POSITIVE=many", "TIMEOUT=5"})
	if err == nil {
		t.Fatal("loaded")
	}
	for _, want := range []string{`POSITIVE: "many" is not a whole number`, "TIMEOUT: not a duration such as 30s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "POSITIVE"); n != 1 {
		t.Errorf("POSITIVE is reported %d times in:\n%v", n, err)
	}
}

func TestValidateOfAStructAndOfItsEmbeddedStructBothCount(t *testing.T) {
	_, err := config.Load[part]([]string{"GOOGLE_CLOUD_PROJECT=p", "LIMIT=-1", "LOG_LEVEL=loud"})
	for _, want := range []string{"LIMIT: negative", "LOG_LEVEL: "} {
		if err == nil || strings.Count(err.Error(), want) != 1 {
			t.Errorf("%v; want %q once", err, want)
		}
	}
}

func TestUsageNamesEveryVariable(t *testing.T) {
	var b strings.Builder
	if err := config.Usage[part](&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"GOOGLE_CLOUD_PROJECT", "Required.", "LIMIT", "Default: 7.", "MODEL"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}
