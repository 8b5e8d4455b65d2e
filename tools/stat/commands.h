/* commands.h: what psyne-stat can do. Each returns the exit status. */
#ifndef PSYNE_TOOLS_STAT_COMMANDS_H
#define PSYNE_TOOLS_STAT_COMMANDS_H

#include "stat/collect.h"
#include "stat/json.h"

enum { EXIT_UNREADABLE = 1, EXIT_USAGE = 2, EXIT_UNMATCHED = 3, EXIT_PARTLY = 4 };

int command_list(const struct options *o);
int command_show(const struct options *o);
int command_links(const struct options *o);

/* What all JSON documents begin with, those about channels, and what a channel says in each of them, inside its braces. */
void document_begin(struct json *j, const char *command);
void document_open(struct json *j, const char *command, const struct channels *c);
void document_close(struct json *j);
void document_channel(struct json *j, const struct channel *c);

/* Of a command that has read its channels. */
int channels_status(const struct channels *c);

#endif
