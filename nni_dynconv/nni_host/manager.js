// Node preload for NNI's manager (`compat`, 15 and 16): it waits for the tuner as long as that lives, and tells it its
// settings by the environment, which other users of the machine cannot read as they can a command line.
'use strict';
const child = require('child_process');
const Module = require('module');

const LONGEST = 10 * 60 * 1000;
let tuner = null;

const spawn = child.spawn;
child.spawn = function (command, args, options) {
    const place = Array.isArray(args) ? args.indexOf('--exp_params') : -1;
    if (place < 0) {
        return spawn.apply(this, arguments);
    }
    const env = { ...options.env, NNI_DYNCONV_EXP_PARAMS: args[place + 1], NNI_DYNCONV_PATIENT: '1' };
    const start = ['-m', 'nni_dynconv.nni_host.dispatcher', '--exp_params', '-'];
    tuner = spawn.call(this, command, start, { ...options, env, shell: false });
    return tuner;
};

// NNI's own `init` gives up after ten seconds, however busy the machine is.
function init() {
    const connect = this.connect;
    if (connect.settled) {
        return Promise.resolve();
    }
    const giveUp = (why) => {
        if (!connect.settled) {
            connect.reject(new Error(`tuner_command_channel: ${why} Please check tuner (dispatcher) log.`));
        }
    };
    const over = setTimeout(() => giveUp('Tuner did not connect in 10 minutes.'), LONGEST);
    const ended = () => giveUp('Tuner ended before it connected.');
    const promise = connect.promise.finally(() => clearTimeout(over));
    if (tuner.exitCode !== null || tuner.signalCode !== null) {
        ended();
    } else {
        tuner.once('exit', ended);
        tuner.once('error', ended);
    }
    return promise;
}

const load = Module._load;
Module._load = function (request, ...rest) {
    const loaded = load.call(this, request, ...rest);
    if (/(^|\/)tuner_command_channel$/.test(request) && loaded.getTunerServer) {
        const server = loaded.getTunerServer();
        const own = Object.getPrototypeOf(server).init;
        server.init = function () {
            return tuner === null ? own.call(this) : init.call(this);
        };
    }
    return loaded;
};
