// Node preload for NNI's manager: its web server has no authentication, so it listens on this machine only.
// Loaded by NODE_OPTIONS=--require; what the manager starts (tuner, trials) does not inherit the option.
'use strict';
const net = require('net');
const listen = net.Server.prototype.listen;
const HOST = '127.0.0.1';

const isPort = (value) => value === undefined || value === null || /^\d+$/.test(String(value));

// What is no path and no handle goes to a port, and a port without a host means all interfaces.
function onThisMachine(args) {
    const [first, second] = args;
    if (typeof first === 'function') {
        return [0, HOST, ...args];
    }
    if (first !== null && typeof first === 'object') {
        const elsewhere = ['path', 'fd', 'handle', '_handle'].some((key) => key in first);
        return 'port' in first || !elsewhere ? [{ ...first, host: HOST }, ...args.slice(1)] : args;
    }
    if (!isPort(first)) {
        return args;
    }
    const named = typeof second === 'string' || second === undefined || second === null;
    return [first ?? 0, HOST, ...args.slice(named ? 2 : 1)];
}

net.Server.prototype.listen = function (...args) {
    return listen.apply(this, onThisMachine(args));
};

if (process.env.NNI_DYNCONV_NODE_OPTIONS) {
    process.env.NODE_OPTIONS = process.env.NNI_DYNCONV_NODE_OPTIONS;
} else {
    delete process.env.NODE_OPTIONS;
}
