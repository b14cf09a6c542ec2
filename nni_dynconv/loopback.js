// Node preload for NNI's manager: its web server has no authentication, so it listens on this machine only.
// Loaded by NODE_OPTIONS=--require; what the manager starts (tuner, trials) does not inherit the option.
'use strict';
const net = require('net');
const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (...args) {
    const [first, second] = args;
    if (typeof first === 'number' || (typeof first === 'string' && /^\d+$/.test(first))) {
        if (typeof second === 'string') {
            args[1] = '127.0.0.1';
        } else {
            args.splice(1, 0, '127.0.0.1');
        }
    } else if (first !== null && typeof first === 'object' && 'port' in first) {
        args[0] = { ...first, host: '127.0.0.1' };
    }
    return listen.apply(this, args);
};

if (process.env.NNI_DYNCONV_NODE_OPTIONS) {
    process.env.NODE_OPTIONS = process.env.NNI_DYNCONV_NODE_OPTIONS;
} else {
    delete process.env.NODE_OPTIONS;
}
