package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// OpenAIOptions says how an endpoint of OpenAI's protocol is reached.
type OpenAIOptions struct {
	Name    string       // of the model
	Key     string       // empty where the endpoint wants none
	BaseURL string       // empty for OpenAI's own
	HTTP    *http.Client // nil for one of its own
}

// OpenAI is a model behind the chat completions protocol, which OpenAI and most servers of open models speak.
type OpenAI struct {
	client   openai.Client
	name     string
	key      string
	official bool // whether the endpoint is OpenAI's
}

const officialBaseURL = "https://api.openai.com/v1/"

// NewOpenAI makes a model.
func NewOpenAI(o OpenAIOptions) *OpenAI {
	// the key is set even where it is empty, and the address even where it is the usual one, so that the library takes
	// neither from the environment
	opts := []option.RequestOption{
		option.WithMaxRetries(0), option.WithAPIKey(o.Key), option.WithBaseURL(cmp.Or(o.BaseURL, officialBaseURL)),
	}
	if o.HTTP != nil {
		opts = append(opts, option.WithHTTPClient(o.HTTP))
	}
	return &OpenAI{client: openai.NewClient(opts...), name: o.Name, key: o.Key, official: o.BaseURL == ""}
}

// Generate asks the endpoint.
func (o *OpenAI) Generate(ctx context.Context, r Request) (Reply, error) {
	var messages []openai.ChatCompletionMessageParamUnion
	if instruction := r.Instruction(); instruction != "" {
		messages = append(messages, openai.SystemMessage(instruction))
	}
	for _, t := range r.Turns {
		messages = append(messages, openai.UserMessage(t.Question), openai.AssistantMessage(t.Answer))
	}
	messages = append(messages, openai.UserMessage(r.Text))
	name := cmp.Or(r.Model, o.name)
	params := openai.ChatCompletionNewParams{Model: name, Messages: messages}
	switch {
	case r.MaxTokens == 0:
	case o.official: // its newer models refuse the older name
		params.MaxCompletionTokens = openai.Int(int64(r.MaxTokens))
	default: // servers of open models know only the older name
		params.MaxTokens = openai.Int(int64(r.MaxTokens))
	}
	resp, err := o.client.Chat.Completions.New(ctx, params)
	if err != nil {
		f := failure{key: o.key, err: err}
		if api, ok := errors.AsType[*openai.Error](err); ok {
			f.status, f.code, f.detail = api.StatusCode, api.Code, strings.TrimSpace(api.Code+" "+api.Message)
		}
		return Reply{}, f.toError(ctx)
	}
	return o.reply(ctx, resp, name)
}

func (o *OpenAI) reply(ctx context.Context, resp *openai.ChatCompletion, name string) (Reply, error) {
	if len(resp.Choices) == 0 {
		return Reply{}, failure{key: o.key, err: errors.New("the response holds no choice")}.toError(ctx)
	}
	c := resp.Choices[0]
	switch {
	case c.Message.Refusal != "":
		return Reply{}, refusal(o.key, "the model refused: "+c.Message.Refusal)
	case c.FinishReason == "content_filter":
		return Reply{}, refusal(o.key, "the answer was withheld: content_filter")
	case strings.TrimSpace(c.Message.Content) == "":
		return Reply{}, refusal(o.key, fmt.Sprintf("the answer is empty (finish reason %q)", c.FinishReason))
	}
	return Reply{
		Text: c.Message.Content, Model: cmp.Or(resp.Model, name),
		InputTokens: resp.Usage.PromptTokens, OutputTokens: resp.Usage.CompletionTokens,
	}, nil
}
